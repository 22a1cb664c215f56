"""Every public name says what it does, in which shapes and units, what it raises, and shows it.

Docstrings are numpydoc. An override may leave its docstring to the class that declares the method.
"""

import ast
import enum
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import pytest

import chartae

# Modules whose names implement published formulas: each cites where it comes from.
CITING = ("parts.posteriors", "parts.priors", "parts.likelihoods", "parts.objectives", "geometry")
ARRAY = re.compile(r"\b(Tensor|ndarray|NDArray|ArrayLike|Array)\b")
AXIS = r"\s*(?:\*?[\w.]+(?:\s?[-+*/×]\s?\w+)*)\s*"
SHAPE = re.compile(rf"\(\s*\)|\({AXIS},(?:{AXIS},)*(?:{AXIS})?\)|\bshape\b")
SOURCE = re.compile(r"^(References|Source)\n-{3,}$|^Source: |arXiv:\s?\d{4}\.\d{4,5}|doi:\s?10\.|ISBN", re.M)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def sections(doc: str) -> dict[str, str]:
    """Split a docstring at its underlined headings; the text before them is under ''."""
    pieces = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}$", doc, flags=re.M)
    return {"": pieces[0]} | dict(zip(pieces[1::2], pieces[2::2], strict=True))


def entries(section: str) -> dict[str, str]:
    """Split a section into its entries: name or type, and all that is said about it."""
    found: dict[str, str] = {}
    for block in re.split(r"^(?=\S)", section.strip("\n"), flags=re.M):
        head = block.partition("\n")[0].partition(" : ")[0]
        found |= {name.strip().lstrip("*"): block for name in head.split(",")}
    return found


def raises(function: types.FunctionType) -> bool:
    """Tell whether the body raises by itself; functions inside it are not its body."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError):  # made by dataclass or NamedTuple
        return False
    queue = list(ast.iter_child_nodes(tree))
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            queue += ast.iter_child_nodes(node)
    return False


@dataclass
class Name:
    """One documented thing: where it is, the object, and what its docstring owes."""

    path: str
    obj: Any
    example: bool = False
    cites: bool = False
    inherited: str | None = None  # the docstring of the method that this one overrides

    def problems(self) -> Iterator[str]:
        doc = inspect.cleandoc(self.obj.__doc__ or self.inherited or "")
        if not doc or (
            is_dataclass(self.obj) and doc.startswith(f"{self.obj.__name__}(")
        ):  # made by dataclass
            yield "has no docstring"
            return
        parts, is_property = sections(doc), isinstance(self.obj, property)
        if not re.match(r".+\.(\n\n|\Z)", doc):
            yield "its first line is not a one-line summary that ends in a period"
        function = self.obj.fget if is_property else self.obj
        if isinstance(self.obj, type):
            function = self.obj.__dict__.get("__post_init__", self.obj.__dict__.get("__init__"))
        if (
            isinstance(function, types.FunctionType)
            and raises(inspect.unwrap(function))
            and "Raises" not in parts
        ):
            yield "raises, and has no Raises section"
        yield from self.wrong_property(doc) if is_property else self.wrong_signature(parts)
        if self.example and ">>> " not in parts.get("Examples", ""):
            yield "has no example"
        if "+SKIP" in doc:
            yield "has an example that does not run"
        if self.cites and not SOURCE.search(doc):
            yield "implements something published, and has no References or Source"

    def wrong_property(self, doc: str) -> Iterator[str]:
        if array_valued(str(inspect.signature(self.obj.fget).return_annotation)) and not SHAPE.search(doc):
            yield "is an array, and its shape is not said"

    def wrong_signature(self, parts: dict[str, str]) -> Iterator[str]:
        try:
            signature = inspect.signature(self.obj)
        except ValueError:  # some built-in base has none
            return
        if isinstance(self.obj, type) and issubclass(self.obj, enum.Enum):  # it is called by nobody
            return
        said = entries(parts.get("Parameters", "")) | entries(parts.get("Attributes", ""))
        for parameter in signature.parameters.values():
            annotation = str(parameter.annotation)
            if parameter.name in {"self", "cls"} or parameter.kind in VARIADIC or parameter.name[0] == "_":
                continue
            if parameter.name not in said:
                yield f"does not describe its parameter {parameter.name}"
            elif array_valued(annotation) and not SHAPE.search(said[parameter.name]):
                yield f"does not give the shape of {parameter.name}"
        returned = str(signature.return_annotation)
        if isinstance(self.obj, type) or returned in {
            "None",
            "NoReturn",
            "Never",
            str(inspect.Signature.empty),
        }:
            return
        result = parts.get("Returns", parts.get("Yields"))
        if result is None:
            yield "returns something, and has no Returns or Yields section"
        elif array_valued(returned) and not SHAPE.search(result):
            yield "does not give the shape of what it returns"


def array_valued(annotation: str) -> bool:
    """Tell whether a value is an array or may be one; functions and tables of arrays have no one shape."""
    return bool(ARRAY.search(re.sub(r"\b(Callable|Mapping|dict|type)\[.*\]", "", annotation)))


def methods(cls: type) -> Iterator[Name]:
    """The public methods and properties of a class that were written in chartae."""
    ours = [base for base in cls.__mro__ if base.__module__.split(".")[0] == cls.__module__.split(".")[0]]
    for position, base in enumerate(ours):
        for name, member in vars(base).items():
            member = getattr(member, "__func__", member)  # of static and class methods
            member = property(member.func) if isinstance(member, functools.cached_property) else member
            if isinstance(member, types.FunctionType | property) and not name.startswith("_"):
                above = (vars(other).get(name) for other in ours[position + 1 :])
                inherited = next((doc for other in above if (doc := getattr(other, "__doc__", None))), None)
                yield Name(f"{base.__module__}.{base.__qualname__}.{name}", member, inherited=inherited)


MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(chartae.__path__, "chartae.")
    if not info.name.endswith("__main__") and "._" not in info.name
]


def public() -> list[Name]:
    """Everything that chartae shows, once each."""
    found: dict[Any, Name] = {}
    for module in [*MODULES, chartae]:
        cites = module.__name__.removeprefix("chartae.").startswith(CITING)
        for name in getattr(module, "__all__", ()):
            obj = getattr(module, name)
            if not isinstance(obj, types.FunctionType | type):
                continue  # constants and type aliases
            if obj.__module__ == module.__name__ or id(obj) not in found:
                cited = cites and not is_dataclass(obj)  # a container of results computes nothing
                found[id(obj)] = Name(f"{module.__name__}.{name}", obj, example=True, cites=cited)
            if isinstance(obj, type):
                found |= {method.path: method for method in methods(obj)}
    return sorted(found.values(), key=lambda each: each.path)


@pytest.mark.parametrize("name", public(), ids=lambda name: name.path)
def test_public_name_is_documented(name):
    assert list(name.problems()) == []


@pytest.mark.parametrize(
    "info", list(pkgutil.walk_packages(chartae.__path__, "chartae.")), ids=lambda i: i.name
)
def test_module_declares_its_public_names(info):
    if "._" in info.name or info.name.endswith("__main__"):
        return
    module = importlib.import_module(info.name)
    written = [
        name
        for name, obj in vars(module).items()
        if isinstance(obj, types.FunctionType | type) and obj.__module__ == info.name and name[0] != "_"
    ]
    assert not written or hasattr(module, "__all__"), f"{info.name} has no __all__; it defines {written}"


def test_every_recipe_cites_its_paper():
    for each in chartae.recipes():
        assert re.search(r"\b(19|20)\d\d\b|arXiv:|doi:", each.paper), each.name
        assert SOURCE.search(inspect.getdoc(each.make) or ""), each.name
        assert re.fullmatch(r"[A-Z].*\.", each.summary), each.name


# --- the checker itself, against docstrings that each break one rule

GOOD = """Double it.

Parameters
----------
x : ndarray
    Shape (n, d).

Returns
-------
ndarray
    Shape (n, d).

Raises
------
ValueError
    If it is empty.

References
----------
Kingma & Welling 2014, eq. 3.

Examples
--------
>>> 1 + 1
2
"""


def documented(doc: str | None) -> list[str]:
    def f(x: np.ndarray) -> np.ndarray:
        if not len(x):
            raise ValueError("empty")
        return 2 * x

    f.__doc__ = doc
    return list(Name("f", f, example=True, cites=True).problems())


def test_a_complete_docstring_passes():
    assert documented(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (GOOD, "", "no docstring"),
        ("Double it.", "Double it", "summary"),
        ("Double it.", "Double it,\nor more.", "summary"),
        ("x : ndarray", "y : ndarray", "parameter x"),
        ("Shape (n, d).\n\nReturns", "All.\n\nReturns", "shape of x"),
        ("Shape (n, d).\n\nRaises", "All.\n\nRaises", "shape of what it returns"),
        ("Returns\n-------", "Notes\n-----", "no Returns"),
        ("Raises\n------", "Notes\n-----", "no Raises"),
        ("References\n----------", "Notes\n-----", "no References"),
        ("Examples\n--------", "Notes\n-----", "no example"),
        (">>> 1 + 1", ">>> 1 + 1  # doctest: +SKIP", "does not run"),
    ],
)
def test_a_planted_omission_is_found(old, new, problem):
    found = documented(GOOD.replace(old, new))
    assert len(found) == 1
    assert problem in found[0]


def test_methods_and_properties_are_found():
    class Base:
        def inherits(self) -> int:
            """Say it once.

            Returns
            -------
            int
                It.
            """

    class Child(Base):
        def inherits(self) -> int:
            return 1

        def silent(self) -> None:
            pass

        @property
        def codes(self) -> np.ndarray:
            """The codes."""

        @classmethod
        def made(cls) -> None:
            pass

    found = {m.path.rpartition(".")[2]: list(m.problems()) for m in methods(Child)}
    assert found == {
        "inherits": [],
        "silent": ["has no docstring"],
        "codes": ["is an array, and its shape is not said"],
        "made": ["has no docstring"],
    }
