"""Tables as lines of text and on a terminal."""

import io

from rich.console import Console

from ablate.terminal import duration, print_table, printable


def in_a_pipe(*rows: tuple[str, ...]) -> list[str]:
    out = io.StringIO()
    print_table(Console(file=out, width=20), ("arm", "n"), rows, numbers=("n",))
    return out.getvalue().splitlines()


def test_columns_line_up_whatever_the_width_of_a_sign_and_nothing_is_cut_in_a_pipe() -> None:
    assert in_a_pipe(("ε=0.1", "10"), ("犬", "5")) == ["arm     n", "ε=0.1  10", "犬      5"]
    lines = in_a_pipe(("x" * 300, "1"), ("[bold]y[/bold]", ""), ("a\nb", ""))
    assert lines == ["arm" + 299 * " " + "n", "x" * 300 + "  1", "[bold]y[/bold]", "a b"]
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    print_table(console, ("name", "n"), [("[red]a", "1")], numbers=("n",))
    assert ("───" in out.getvalue(), "[red]a" in out.getvalue()) == (True, True)


def test_control_characters_do_not_reach_the_terminal() -> None:
    given = ("a\nb", "a\x1b[31mb", "ε ≤ 1", "")
    assert [printable(text) for text in given] == ["a b", "a\N{REPLACEMENT CHARACTER}[31mb", "ε ≤ 1", ""]


def test_durations_have_the_two_units_that_fit() -> None:
    shown = {0.2: "0 s", 59.4: "59 s", 59.6: "1 min 00 s", 725: "12 min 05 s", 11_999: "3 h 19 min"}
    assert {seconds: duration(seconds) for seconds in shown} == shown
