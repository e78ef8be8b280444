"""From a space to the grammar of its answers, and from an answer to a configuration."""

from localhpo.grammar.answer import Answer, parse
from localhpo.grammar.lark import lark
from localhpo.grammar.schema import json_schema

__all__ = ["Answer", "json_schema", "lark", "parse"]
