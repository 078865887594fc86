"""Runs of every kind, as the commands' tests have them."""

from tests.cli.commands.conftest import bigmodel, made

__all__ = ["bigmodel", "made"]
