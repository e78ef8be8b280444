import textwrap

import pytest

from localhpo.cli.init.argparse_reader import Option, Script, read_script
from localhpo.errors import InputError


def script(text: str) -> Script:
    return read_script(textwrap.dedent(text), "train.py")


def option(call: str, before: str = "") -> Option:
    """Return the one option that a call of add_argument adds."""
    source = f"import argparse\n{before}\np = argparse.ArgumentParser()\np.add_argument({call})\n"
    found = read_script(source, "train.py")
    assert len(found.options) == 1, found
    return found.options[0]


@pytest.mark.parametrize(
    ("call", "name", "flag", "kind", "default"),
    [
        ('"--lr", type=float, default=1e-3', "lr", "--lr", "float", 1e-3),
        ('"-l", "--learning-rate", type=float', "learning-rate", "--learning-rate", "float", None),
        (
            '"--learning-rate", "--lr", type=float',
            "learning-rate",
            "--learning-rate",
            "float",
            None,
        ),
        ('"-b", type=int, default=2**5', "b", "-b", "int", 32),
        ('"-lr", type=float, default=3e-4', "lr", "-lr", "float", 3e-4),
        ('"--shift", type=float, default=-1', "shift", "--shift", "float", -1.0),
        ('"--rate", type=float, default=1/4', "rate", "--rate", "float", 0.25),
        ('"--wide", type=int, default="64"', "wide", "--wide", "int", 64),
        ('"--opt", default="adam"', "opt", "--opt", "str", "adam"),
        ('"--opt", type=str, dest="optimizer", default="adam"', "opt", "--opt", "str", "adam"),
        ('"--n", type=positive_int, default=4', "n", "--n", "int", 4),
        ('"--n", type=checks.strictly, default=0.5', "n", "--n", "float", 0.5),
        ('"--n", type=int, default=os.cpu_count()', "n", "--n", "int", None),
        ('"--n", type=int, default=2**2**100', "n", "--n", "int", None),
        ('"--n", type=int, default=1//0', "n", "--n", "int", None),
        ('"--n", type=int, nargs="?", default=3', "n", "--n", "int", 3),
    ],
)
def test_an_option_that_takes_a_value(call, name, flag, kind, default):
    read_option = option(call)
    assert (read_option.name, read_option.flag, read_option.kind) == (name, flag, kind)
    assert read_option.default == default
    assert type(read_option.default) is type(default)
    assert read_option.why_not == ""


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ('"--amp", action="store_true"', "a switch takes no value"),
        ('"--amp", action=argparse.BooleanOptionalAction', "a switch takes no value"),
        ('"-v", action="count"', "it counts how often it is given"),
        ('"--tag", action="append"', "it collects several values"),
        ('"--x", action=MyAction', "its action MyAction is not supported"),
        ('"--betas", type=float, nargs=2, default=(0.9, 0.99)', "it takes several values"),
        ('"--layers", type=int, nargs="+"', "it takes several values"),
        ('"data"', "it is a positional argument"),
        ('"--label", type=bool, default=False', "with type=bool every text is true, even `false`"),
        ('"--depth", default=3', "it has no type, so that its values are texts"),
        ('"--depth", choices=[1, 2]', "it has no type, so that its values are texts"),
        ('"--act", choices=list_all()', "its choices are computed while the script runs"),
        ('"--cfg", type=json.loads', "its type json.loads is not supported"),
    ],
)
def test_an_option_that_cannot_be_tuned_has_a_reason(call, why):
    assert option(call).why_not == why


@pytest.mark.parametrize(
    ("call", "choices"),
    [
        ('"--opt", choices=["adam", "sgd"]', ("adam", "sgd")),
        ('"--opt", choices=("adam", "sgd")', ("adam", "sgd")),
        ('"--opt", choices=OPTIMIZERS', ("sgd", "adam")),
        ('"--opt", choices=sorted(OPTIMIZERS)', ("adam", "sgd")),
        ('"--opt", choices=MODELS.keys()', ("vgg", "resnet")),
        ('"--opt", choices=list(MODELS)', ("vgg", "resnet")),
        ('"--n", type=int, choices=range(1, 4)', (1, 2, 3)),
    ],
)
def test_choices(call, choices):
    before = 'OPTIMIZERS = ["sgd", "adam"]\nMODELS: dict = {"vgg": Vgg, "resnet": Resnet}'
    assert option(call, before).choices == choices


@pytest.mark.parametrize(
    ("reader", "choices", "default"),
    [
        ('lambda x: x.lower() == "true"', (True, False), True),
        ('lambda x: x == "True"', ("True", "False"), "True"),
        ("str2bool", (True, False), True),
        ("as_flag", ("yes", "no"), "yes"),
        ("distutils.util.strtobool", (True, False), True),
    ],
)
def test_functions_that_read_booleans_define_the_choices(reader, choices, default):
    before = 'def as_flag(text):\n    return text == "yes"'
    read_option = option(f'"--x", type={reader}, default=True', before)
    assert (read_option.choices, read_option.default) == (choices, default)


def test_a_range_too_long_to_list_is_not_a_list_of_choices():
    assert option('"--n", type=int, choices=range(10**12)').why_not


def test_names_defined_in_a_circle_are_not_constants():
    assert option('"--n", type=int, default=A', "A = B\nB = A").default is None


def test_placeholders_of_argparse_are_removed_from_help():
    call = '"--lr", type=float, help="peak learning rate,\\n 90%% of it (default: %(default)s)"'
    assert option(call).help == "peak learning rate, 90% of it"
    assert option('"--lr", type=float, help=argparse.SUPPRESS').help == ""


def test_required_options_and_positionals():
    assert option('"--data", required=True').required
    assert option('"data"').required
    assert not option('"data", nargs="?"').required
    assert not option('"--data"').required


def test_a_script():
    read_script = script(
        """
        import argparse
        from localhpo import report

        def build():
            parser = argparse.ArgumentParser()
            group = parser.add_argument_group("optimizer")
            group.add_argument("--lr", type=float, default=0.1)
            exclusive = parser.add_mutually_exclusive_group()
            exclusive.add_argument("--depth", type=int, default=4)
            parser.add_argument("--version", action="version", version="1")
            for name in ("a", "b"):
                parser.add_argument(f"--{name}", type=int)
            commands = parser.add_subparsers()
            serve = commands.add_parser("serve")
            serve.add_argument("--port", type=int)
            return parser

        for epoch in range(3):
            report(step=epoch, train_loss=1.0, val_loss=2.0)
        report(3, **{"val/acc": 0.5})
        """
    )
    assert [o.name for o in read_script.options] == ["lr", "depth"]
    assert [(u.line, u.why) for u in read_script.unread] == [
        (13, "its name is computed while the script runs"),
        (16, "it is an option of a subcommand"),
    ]
    assert read_script.metrics == ("train_loss", "val_loss", "val/acc")
    assert read_script.read_by == "argparse"


def test_an_option_added_twice_counts_once():
    source = """
    if fast:
        p.add_argument("--lr", type=float, default=1.0)
    else:
        p.add_argument("--lr", type=float, default=0.1)
    """
    assert [o.default for o in script(source).options] == [1.0]


@pytest.mark.parametrize("library", ["click", "fire", "typer", "hydra", "absl"])
def test_other_libraries_are_recognized_and_not_read(library):
    read_script = script(f"from {library} import something\nimport numpy\n")
    assert (read_script.options, read_script.read_by) == ((), library)


def test_a_script_without_any_command_line():
    assert script("print(1)") == Script()


def test_a_syntax_error_names_the_line():
    with pytest.raises(InputError, match=r"train\.py, line 2: not valid Python"):
        script("x = 1\ndef f(:\n")


def test_a_null_byte_is_a_clear_error():
    with pytest.raises(InputError, match="not valid Python"):
        read_script("x = 1\0", "train.py")


def test_an_invalid_escape_in_a_script_raises_no_warning():
    assert script('pattern = "\\d"\n') == Script()
