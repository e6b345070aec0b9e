"""Copies of whole databases, for whoever needs several that are alike and throws them away."""

from __future__ import annotations

from urllib.parse import urlsplit

from psycopg import sql

from heartbit.stores.database import connect
from heartbit.stores.failures import mapped


def copy_database(url: str, name: str) -> str:
    """Copy a database that nobody is connected to, on its own server; gives the copy's url.

    Raises:
        JournalError: there is one of this name, or the role may not make any.
    """
    parts = urlsplit(url)
    original = sql.Identifier(parts.path.lstrip("/"))
    statement = sql.SQL("create database {} template {}").format(sql.Identifier(name), original)
    with mapped(), connect(parts._replace(path="/postgres").geturl()) as connection:
        connection.execute(statement)
    return parts._replace(path=f"/{name}").geturl()
