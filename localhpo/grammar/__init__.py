"""Grammars of the answers of a model, and the parser of such answers."""

from localhpo.grammar.answer import Answer, parse_answer
from localhpo.grammar.lark import lark_grammar
from localhpo.grammar.schema import json_schema

__all__ = ["Answer", "json_schema", "lark_grammar", "parse_answer"]
