"""Has a template counted as it runs: rounds of loops, and what is made, compared and written."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

# Filters that the tree of a template is given: no template can write a name with a blank.
TICK, MADE, READ, KEPT = " tick", " made", " read", " kept"


class Counted(NodeTransformer):
    """Puts the filters above where they belong.

    `a ~ b` becomes the `+` of texts, whose result is checked.
    """

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        tick = _by(TICK, nodes.Const(None))
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        if node.test is not None:  # it may leave every round out
            node.test = nodes.And(tick, node.test)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        first, *rest = (_by("string", part) for part in node.nodes)
        joined: nodes.Expr = first
        for part in rest:
            joined = nodes.Add(joined, part)
        return joined

    def visit_List(self, node: nodes.List) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _by(MADE, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _by(MADE, node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _by(READ, pair.key)
        return _by(MADE, node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        self.generic_visit(node)
        node.expr = _by(READ, node.expr)
        for operand in node.ops:
            operand.expr = _by(READ, operand.expr)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_by(READ, _as_expression(part)) for part in node.nodes]
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Assign:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.target, nodes.NSRef):
            node.node = _by(KEPT, node.node)
        return node


def _by(name: str, value: Any) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _as_expression(part: nodes.Node) -> nodes.Node:
    if isinstance(part, nodes.TemplateData):
        return nodes.Const(part.data, lineno=part.lineno)
    return part
