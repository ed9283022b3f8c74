"""What the scripts share: clients of the server under test, in a place of their own."""

import os
import time
from itertools import count
from urllib.parse import urlsplit

import chromadb
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings

URL = urlsplit(os.environ["OPAL_URL"])
_numbers = count()


def unique_name(what):
    """A name that nobody else has, in this run or an earlier one."""
    return f"{what}-{time.time_ns():x}-{next(_numbers)}"


def client(tenant=DEFAULT_TENANT, database=DEFAULT_DATABASE):
    return chromadb.HttpClient(host=URL.hostname, port=URL.port, tenant=tenant, database=database)


def admin():
    return chromadb.AdminClient(
        Settings(
            chroma_api_impl="chromadb.api.fastapi.FastAPI",
            chroma_server_host=URL.hostname,
            chroma_server_http_port=URL.port,
        )
    )


def fresh_client():
    """A client in a new tenant's new database."""
    tenant = unique_name("tenant")
    admin().create_tenant(tenant)
    admin().create_database("main", tenant)
    return client(tenant, "main")


def fresh_collection(**settings):
    return fresh_client().create_collection("records", embedding_function=None, **settings)
