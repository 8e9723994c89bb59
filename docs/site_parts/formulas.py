"""Formulas as docstrings write them, ``h = v + (x − (v − v_reset))/tau``, in LaTeX."""

from __future__ import annotations

import re

__all__ = ["formulas", "latex", "with_equations"]

LITERAL = re.compile(r"``([^`]+)``")
RELATION = re.compile(r"\s(?:[=≥>≤<←])\s")
TOKEN = re.compile(
    r"\s+|Σ_\{[^}]*\}|[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*|[Α-ω](?:_[A-Za-z0-9Α-ω])?|\d+(?:\.\d+)?|.", re.DOTALL
)
GREEK = {
    **{"Θ": "Theta", "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "θ": "theta", "λ": "lambda"},
    **{"π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "ω": "omega"},
}
SIGNS = {"·": r"\,", "−": "-", "≥": r"\ge", "≤": r"\le", "←": r"\leftarrow", "∈": r"\in"}
POWERS = str.maketrans("⁰¹²³", "0123")
PREFIXES = {"ln", "cos", "sin"}  # apply to what follows, without brackets
WORDS = {"where", "for", "else", "if"}
CLOSING = {"(": ")", "[": "]", "|": "|"}


def formulas(docstring: str) -> list[str]:
    """The formulas in a docstring, before its arguments: literals with a relation in them, and no string."""
    literals = LITERAL.findall(docstring.split("Args:")[0])
    return [" ".join(text.split()) for text in literals if RELATION.search(text) and '"' not in text]


def with_equations(docstring: str) -> str:
    """The docstring, its formulas as equations."""
    about, args, rest = docstring.partition("Args:")
    found = set(formulas(about))

    def written(literal: re.Match[str]) -> str:
        formula = " ".join(literal[1].split())
        return f":math:`{latex(formula)}`" if formula in found else literal[0]

    return LITERAL.sub(written, about) + args + rest


def latex(formula: str) -> str:
    """The formula, with fractions built.

    Raises:
        ValueError: brackets that do not match, or a slash with nothing on one of its sides.
    """
    try:
        atoms, rest = _sequence(TOKEN.findall(formula), closing="")
    except IndexError:
        raise ValueError(f"{formula!r} ends too early") from None
    if rest:
        raise ValueError(f"{formula!r}: no bracket is open at {''.join(rest)!r}")
    return " ".join(atoms)


def _sequence(tokens: list[str], closing: str) -> tuple[list[str], list[str]]:
    """Atoms up to a closing bracket, and what follows."""
    atoms: list[str] = []
    while tokens and tokens[0] not in (closing, ")", "]"):
        if tokens[0].isspace():
            tokens = tokens[1:]
        elif tokens[0] == "/":
            if not atoms or atoms[-1] in {*SIGNS.values(), *"=+<>,;"}:
                raise ValueError(f"nothing to divide before /{''.join(tokens[1:])}")
            below, tokens = _atom(tokens[1:])
            atoms[-1] = rf"\frac{{{_bare(atoms[-1])}}}{{{_bare(below)}}}"
        else:
            atom, tokens = _atom(tokens)
            atoms.append(atom)
    return atoms, tokens


def _atom(tokens: list[str]) -> tuple[str, list[str]]:
    """What a slash takes as one thing: a name or a number, a call, a bracket, a root; with its primes and powers."""
    if tokens[0].isspace():
        tokens = tokens[1:]
    token, tokens = tokens[0], tokens[1:]
    if token in CLOSING:
        inside, tokens = _sequence(tokens, CLOSING[token])
        atom, tokens = rf"\left{token} {' '.join(inside)} \right{tokens[0]}", tokens[1:]
    elif token == "√":
        inner, tokens = _atom(tokens)
        atom = rf"\sqrt{{{_bare(inner)}}}"
    elif token in PREFIXES or (len(token) > 1 and token.isalpha() and tokens[:1] == ["("]):
        argument, tokens = _atom(tokens)
        atom = rf"\operatorname{{{token}}} {argument}"
    else:
        atom = _name(token)
    while tokens and tokens[0] in "'⁰¹²³^":
        power, tokens = tokens[0].translate(POWERS), tokens[1:]
        if power == "^":
            power, tokens = _atom(tokens)
        atom += power if power == "'" else f"^{{{_bare(power)}}}"
    return atom, tokens


def _bare(atom: str) -> str:
    """Without the brackets that a fraction or a root makes needless."""
    whole = re.fullmatch(r"\\left\( (.*) \\right\)", atom)
    return whole[1] if whole else atom


def _name(token: str) -> str:
    """A name with its subscripts, a number, a sign."""
    if token in SIGNS:
        return SIGNS[token]
    if token in WORDS:
        return rf"\text{{ {token} }}"
    if token.startswith("Σ_"):
        first, _, last = token[3:-1].partition("..")
        return rf"\sum_{{{first}}}^{{{last}}}"
    name, *subscripts = re.sub(r"^([A-Za-z])(\d)$", r"\1_\2", token).split("_")
    return _letters(name) + (f"_{{{', '.join(map(_letters, subscripts))}}}" if subscripts else "")


def _letters(word: str) -> str:
    if word in GREEK.values() or word in GREEK:
        return f"\\{GREEK.get(word, word)} "
    return rf"\mathrm{{{word}}}" if len(word) > 1 and word[0].isalpha() else word
