"""Endpoints by the environment: one plain URL as ever, or several by operator; what is ambiguous is refused."""

import pytest

from chains import Registry
from verifier.settings import endpoints


def read(bsc, urls, **environment):
    """The endpoints of BSC as (operator, URL), and the quorum."""
    found = endpoints(Registry({"BSC": bsc}), {"BSC_RPC_URL": urls, **environment})["BSC"]
    return [(each.operator, each.url.get_secret_value()) for each in found.endpoints], found.quorum


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8545",
        "https://node.example/v2/key?a=b&c=d",
        "https://node.example/?allow=1,2,3",
        "https://user:secret@node.example/",
        "https://node.example/?next=https://other.example",
    ],
)
def test_one_plain_url_is_as_it_was(bsc, url):
    """It is taken whole, its host names the operator, and one operator is enough."""
    ((operator, taken),), quorum = read(bsc, url)
    assert (url, 1) == (taken, quorum)
    assert operator in ("127.0.0.1:8545", "node.example")


@pytest.mark.parametrize(
    ("urls", "expected", "quorum"),
    [
        (
            "ann=https://a.example/key,ben=https://b.example/?k=1,2",
            [("ann", "https://a.example/key"), ("ben", "https://b.example/?k=1,2")],
            2,
        ),
        (
            "https://a.example, http://a.example:8545 ,https://B.example:443/x",
            [
                ("a.example", "https://a.example"),
                ("a.example:8545", "http://a.example:8545"),
                ("b.example", "https://B.example:443/x"),
            ],
            2,
        ),
        (
            "Ann=https://a.example/1,ann=https://a.example/2,",
            [("ann", "https://a.example/1"), ("ann", "https://a.example/2")],
            1,
        ),
    ],
)
def test_several_endpoints(bsc, urls, expected, quorum):
    """In the order given; one operator may have several, capitals make no other; two of several have to agree."""
    assert (expected, quorum) == read(bsc, urls)


@pytest.mark.parametrize(("given", "expected"), [("1", 1), ("2", 2), ("3", 3), ("", 2)])
def test_the_quorum_can_be_set(bsc, given, expected):
    """Up to as many as there are operators; empty is not set."""
    urls = "a=https://a.example,b=https://b.example,c=https://c.example"
    assert expected == read(bsc, urls, BSC_RPC_QUORUM=given)[1]


@pytest.mark.parametrize("given", ["0", "3", "-1", "two", "1.0", "²"])
def test_a_quorum_that_cannot_be_is_refused(bsc, given):
    """More operators than there are, none, or no number: the service does not start."""
    with pytest.raises(ValueError, match="BSC_RPC_QUORUM"):
        read(bsc, "a=https://a.example,b=https://b.example,b=https://c.example", BSC_RPC_QUORUM=given)


@pytest.mark.parametrize(
    "urls",
    [
        "a=https://x.example/secret,b=https://x.example/secret",
        "https://x.example/secret,https://X.example:443/secret/",
        "a=https://x.example/secret,b=wss://y.example",
        "a=https://x.example/secret,b=",
        "a=https://x.example/secret,ftp://y.example",
        "https://x.example/secret,ftp://y.example",
        "a b=https://x.example/secret",
        "a=b=https://x.example/secret",
        "=https://x.example/secret",
        "https://x.example:port/secret",
        "https://,https://x.example/secret",
    ],
)
def test_what_is_ambiguous_is_refused_and_not_repeated(bsc, urls):
    """One URL twice, no URL, no name: the service does not start, and the message holds no URL."""
    with pytest.raises(ValueError, match="BSC_RPC_URL") as refused:
        read(bsc, urls)
    assert "secret" not in str(refused.value)


def test_a_quorum_by_the_name_of_the_chain(bsc):
    """A dash in the chain's name is an underscore in the variable's."""
    chain = type(bsc)("BSC-TEST", 97, "T_URL", None, 1.0, {})
    environment = {"T_URL": "a=https://a.example,b=https://b.example", "BSC_TEST_RPC_QUORUM": "1"}
    assert 1 == endpoints(Registry({"BSC-TEST": chain}), environment)["BSC-TEST"].quorum
