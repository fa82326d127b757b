"""A listing is whole, or it is none: pages as servers write them, and as networks break them.

The servers are moto's and rclone's; what is compared with is boto3's own paginator.
"""

import random
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.s3.models import s3_backends

from devstack.samples import client
from imagecore.errors import InfrastructureError
from imagecore.listing import BadListing, Listed, list_pages, nanoseconds, parse_page
from imagecore.s3 import Bucket
from tests.faults import FaultProxy, cut_listing, drop, no_token, status, truncate, unsorted
from tests.faultwire import Fault, Request, Response
from tests.imagecore.synctools import once

AWS = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>quotes</Name>
  <Prefix>E</Prefix>
  <StartAfter>ExampleGuide.pdf</StartAfter>
  <KeyCount>2</KeyCount>
  <MaxKeys>1000</MaxKeys>
  <EncodingType>url</EncodingType>
  <IsTruncated>true</IsTruncated>
  <NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>
  <Contents>
    <Key>Example+a%2Bb%25%C3%A9.txt</Key>
    <LastModified>2013-09-17T18:07:53.000Z</LastModified>
    <ETag>&quot;599bab3ed2c697f1d26842727561fd94&quot;</ETag>
    <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>
    <ChecksumType>FULL_OBJECT</ChecksumType>
    <Size>857</Size>
    <StorageClass>REDUCED_REDUNDANCY</StorageClass>
    <Owner><ID>1</ID><DisplayName>mtd@amazon.com</DisplayName></Owner>
  </Contents>
  <Contents>
    <Key>Extra%0A&amp;%0D.txt</Key>
    <LastModified>2013-09-17T18:07:53.125Z</LastModified>
    <ETag>"599bab3ed2c697f1d26842727561fd94-12"</ETag>
    <Size>5000000000000</Size>
    <StorageClass>STANDARD</StorageClass>
  </Contents>
</ListBucketResult>"""
AT = 1_379_441_273 * 10**9


def element(name: str, value: str | None) -> str:
    return "" if value is None else f"<{name}>{value}</{name}>"


def page(*, around: dict[str, str | None] | None = None, **changed: str | None) -> bytes:
    """A page of one object; None leaves an element out."""
    about: dict[str, str | None] = {"IsTruncated": "false", "KeyCount": "1", **(around or {})}
    entry: dict[str, str | None] = {
        "Key": "a.jpg",
        "Size": "1",
        "LastModified": "2026-11-21T05:30:00.000Z",
        "ETag": '"e"',
        **changed,
    }
    inside = "".join(element(*each) for each in entry.items())
    head = "".join(element(*each) for each in about.items())
    return f"<ListBucketResult>{head}{element('Contents', inside)}</ListBucketResult>".encode()


# Pages


def test_a_page_of_amazon_is_read() -> None:
    found = parse_page(AWS)
    assert found.token == "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM="
    assert found.entries == [
        Listed("Example a+b%\u00e9.txt", 857, AT, "599bab3ed2c697f1d26842727561fd94"),
        Listed(
            "Extra\n&\r.txt",
            5_000_000_000_000,
            AT + 125_000_000,
            "599bab3ed2c697f1d26842727561fd94-12",
        ),
    ]


@given(
    st.lists(
        st.builds(
            Listed,
            st.text(st.characters(codec="utf-8") | st.sampled_from("+% &<\n"), min_size=1),
            st.integers(0, 5 * 10**13),
            st.integers(0, 4 * 10**18).map(lambda ns: ns // 10**6 * 10**6),
            st.text("0123456789abcdef-", max_size=40),
        ),
        max_size=4,
    ),
    st.none() | st.text("abc+/=&", min_size=1),
    st.sampled_from(["", "http://s3.amazonaws.com/doc/2006-03-01/"]),
    st.sampled_from(["", "\n  "]),
    st.randoms(use_true_random=False),
)
def test_elements_may_come_in_any_order_with_or_without_namespace_and_blanks(
    listed: list[Listed], token: str | None, namespace: str, blank: str, dice: random.Random
) -> None:
    parts = [
        element("IsTruncated", "false" if token is None else "true"),
        element("KeyCount", str(len(listed))),
        element("EncodingType", "url"),
        element("NextContinuationToken", token and escape(token)),
        element("CommonPrefixes", element("Prefix", "x/")),
    ]
    dice.shuffle(parts)
    for key, size, modified, etag in listed:
        when = datetime.fromtimestamp(modified // 10**9, timezone.utc).isoformat()[:19]
        inside = [
            element("Key", escape(quote_plus(key))),
            element("Size", str(size)),
            element("LastModified", f"{when}.{modified % 10**9 // 10**6:03}Z"),
            element("ETag", f"&quot;{etag}&quot;"),
            element("Owner", element("ID", "7")),
        ]
        dice.shuffle(inside)
        at = dice.randrange(len(parts) + 1) if len(listed) == 1 else len(parts)
        parts.insert(at, element("Contents", blank + blank.join(inside) + blank))
    space = f' xmlns="{namespace}"' if namespace else ""
    xml = f"<ListBucketResult{space}>{blank}{blank.join(parts)}{blank}</ListBucketResult>"
    found = parse_page(xml.encode())
    assert found.entries == listed
    assert found.token == token


@given(
    st.text(st.characters(codec="utf-8") | st.sampled_from("+% &<>\"'\n"), min_size=1),
    st.sampled_from(['"{}"', "&quot;{}&quot;", "&#34;{}&#34;", "{}", '"{}', "&apos;{}&apos;", ""]),
    st.sampled_from(["", "<ChecksumType>FULL_OBJECT</ChecksumType>", "<Odd>&amp;</Odd>", "<Odd/>"]),
    st.sampled_from(["", "<Owner><ID>1</ID></Owner>", "<Owner><ID>&lt;</ID></Owner>"]),
    st.sampled_from(["", "<Contents><Size>1</Size></Contents>", "<s:Contents/>", "<!-- -->"]),
)
def test_entries_as_most_servers_write_them_are_read_as_by_an_xml_parser(
    key: str, etag: str, checksum: str, owner: str, foreign: str
) -> None:
    usual = "<Contents><Key>b</Key><LastModified>2026-11-21T05:30:00Z</LastModified>"
    usual += "<ETag>e</ETag><Size>5</Size></Contents>"
    changed = f"<Key>{escape(key)}</Key><LastModified>2026-11-21T05:30:00.125Z</LastModified>"
    changed += f"<ETag>{etag.format('e1')}</ETag>{checksum}<Size>1</Size>{owner}"
    body = f"<ListBucketResult>{usual}<Contents>{changed}</Contents>{foreign}"
    body += "<IsTruncated>false</IsTruncated></ListBucketResult>"

    def read() -> Any:
        try:
            return parse_page(body.encode())
        except BadListing as error:
            return re.sub("column [0-9]+", "", str(error))

    quickly = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagecore.listing._USUAL_STARTS", ())
        assert quickly == read()


def test_keys_are_taken_literally_where_the_server_does_not_encode_them() -> None:
    assert parse_page(page(Key="a+b%20c \u00e9.jpg")).entries[0].key == "a+b%20c \u00e9.jpg"


def test_an_empty_listing_is_one_when_the_server_says_so() -> None:
    empty = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>%b"
    assert parse_page(empty % b"</ListBucketResult>").entries == []


def test_a_server_need_not_count() -> None:
    assert len(parse_page(page(around={"KeyCount": None})).entries) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "no listing"),
        (b"<html><body>Log in</body></html>", "no listing"),
        (b"<!DOCTYPE html><html><br></html>", "no listing"),
        (b"<Error><Code>SlowDown</Code></Error>", "no listing"),
        (b"<ListBucketResult/>", "no listing"),
        (AWS[:700], "no listing"),
        (AWS[:-1], "no listing"),
        (page(around={"IsTruncated": None}), "no listing"),
        (page(around={"IsTruncated": "perhaps"}), "no listing"),
        (page(around={"KeyCount": "2"}), "says it has 2 entries, and has 1"),
        (page(around={"KeyCount": "0"}), "says it has 0 entries, and has 1"),
        (page(around={"KeyCount": "-1"}), "says it has -1 entries, and has 1"),
        (page(around={"KeyCount": "many"}), "says it has many entries, and has 1"),
        (page(around={"IsTruncated": "true"}), "goes on, but not where"),
        (page(around={"IsTruncated": "true", "NextContinuationToken": ""}), "but not where"),
        (page(Key=None), "an entry that cannot be read"),
        (page(Key=""), "an entry that cannot be read"),
        (page(Key="a%FF", around={"EncodingType": "url"}), "an entry that cannot be read"),
        (page(Size=None), "an entry that cannot be read"),
        (page(Size=""), "an entry that cannot be read"),
        (page(Size="1.5"), "an entry that cannot be read"),
        (page(Size="-1"), "an entry that cannot be read"),
        (page(Size="1_000"), "an entry that cannot be read"),
        (page(Size="9" * 30), "an entry that cannot be read"),
        (page(ETag=None), "an entry that cannot be read"),
        (page(LastModified=None), "an entry that cannot be read"),
        (page(LastModified="yesterday"), "an entry that cannot be read"),
        (page(LastModified="2026-02-30T05:30:00.000Z"), "an entry that cannot be read"),
        (page(LastModified="2026-11-21T05:30:00.000"), "an entry that cannot be read"),
        (page(LastModified="2026-11-21T05:30:00+01:00"), "an entry that cannot be read"),
    ],
)
def test_what_is_no_whole_page_is_refused(answer: bytes, words: str) -> None:
    with pytest.raises(BadListing, match=words):
        parse_page(answer)


@given(st.integers(0, 4 * 10**18))
def test_a_time_is_read_to_the_nanosecond(modified: int) -> None:
    whole = datetime.fromtimestamp(modified // 10**9, timezone.utc).isoformat()[:19]
    assert nanoseconds(f"{whole}.{modified % 10**9:09}Z") == modified
    assert nanoseconds(f"{whole}Z") == modified // 10**9 * 10**9


# Servers


class Stored(NamedTuple):
    """A bucket of 2,500 objects, which are three pages, and where it is."""

    endpoint: str
    bucket: str


KEYS = [f"stores/{number:04d} a+b%20&\u00e9'\"/photos/1.jpg" for number in range(2_498)]
KEYS += ["menus/1.jpg", "stores.txt"]


def stored(endpoint: str, put: Callable[[str, str, bytes], Any]) -> Stored:
    name = f"big-{uuid.uuid4().hex[:12]}"
    client(endpoint).create_bucket(Bucket=name)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(put, name, key, key[:9].encode()) for key in KEYS]:
            done.result()
    return Stored(endpoint, name)


@pytest.fixture(scope="module")
def big(s3_endpoint: str) -> Stored:
    """Put into moto directly, since 2,500 requests would take it ten seconds."""
    return stored(s3_endpoint, s3_backends["123456789012"]["aws"].put_object)


@pytest.fixture(scope="module", params=["moto", "rclone"])
def each_big(request: pytest.FixtureRequest) -> Stored:
    if request.param == "moto":
        return request.getfixturevalue("big")
    endpoint = request.getfixturevalue("rclone_endpoint")
    s3 = client(endpoint)
    return stored(
        endpoint, lambda bucket, key, data: s3.put_object(Bucket=bucket, Key=key, Body=data)
    )


@pytest.fixture
def proxy(big: Stored) -> Iterator[FaultProxy]:
    with FaultProxy(big.endpoint) as proxy:
        yield proxy


def listed(s3: Any, bucket: str, prefix: str = "") -> list[Listed]:
    return [entry for page in list_pages(s3, bucket, prefix) for entry in page.entries]


def listed_by_boto3(where: Stored, prefix: str = "") -> list[Listed]:
    paginator = client(where.endpoint).get_paginator("list_objects_v2")
    pages = paginator.paginate(Bucket=where.bucket, Prefix=prefix)
    return [
        Listed(
            entry["Key"],
            entry["Size"],
            round(entry["LastModified"].timestamp() * 1_000) * 10**6,
            entry["ETag"].strip('"'),
        )
        for page in pages
        for entry in page.get("Contents", ())
    ]


@pytest.mark.parametrize("prefix", ["", "stores/", "stores/0001 a+b%20", "stores/2", "none/"])
def test_a_listing_is_that_of_boto3(each_big: Stored, prefix: str) -> None:
    found = listed(client(each_big.endpoint), each_big.bucket, prefix)
    assert found == listed_by_boto3(each_big, prefix)
    assert len(found) == {"": 2_500, "stores/": 2_498, "stores/2": 498, "none/": 0}.get(prefix, 1)


def test_pages_are_asked_for_one_ahead_and_no_more(proxy: FaultProxy, big: Stored) -> None:
    pages = list_pages(client(proxy.url), big.bucket, "")
    next(pages)
    pages.close()  # type: ignore[attr-defined]
    assert proxy.requests.count("ListObjectsV2") == 2


def test_everything_else_that_the_client_is_asked_answers_as_before(each_big: Stored) -> None:
    s3, bucket = client(each_big.endpoint), each_big.bucket
    next(list_pages(s3, bucket, "menus/"))
    for listing in (s3.list_objects, s3.list_objects_v2):
        found = listing(Bucket=bucket, Prefix="menus/")["Contents"]
        assert [each["Key"] for each in found] == ["menus/1.jpg"]
    assert bucket in [found["Name"] for found in s3.list_buckets()["Buckets"]]
    assert s3.get_object(Bucket=bucket, Key="menus/1.jpg")["Body"].read() == b"menus/1.j"
    assert s3.head_object(Bucket=bucket, Key="menus/1.jpg")["ContentLength"] == 9
    assert s3.put_object(Bucket=bucket, Key="new.jpg", Body=b"x")["ETag"]
    assert s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "new.jpg"}]})["Deleted"]
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.list_objects_v2(Bucket="none-of-these")


@pytest.mark.parametrize(
    "fault",
    [drop(), truncate(5_000), status(500), status(503, "SlowDown")],
    ids=lambda fault: fault.name,
)
def test_a_page_that_is_lost_once_is_asked_for_again(
    proxy: FaultProxy, big: Stored, fault: Fault
) -> None:
    with proxy.fault("ListObjectsV2", fault, after=1, times=1):
        found = listed(client(proxy.url), big.bucket)
    assert found == listed_by_boto3(big)
    assert proxy.requests.count("ListObjectsV2") == 4


def loop(tokens: list[str]) -> Fault:
    """Say of a last page that the first token leads on."""

    def after(request: Request, response: Response) -> None:
        xml = b"".join(response.body)
        tokens.append(request.query.get("continuation-token", ""))
        if b"<IsTruncated>false<" in xml:
            xml = xml.replace(b"<IsTruncated>false<", b"<IsTruncated>true<")
            token = f"<NextContinuationToken>{escape(tokens[1])}</NextContinuationToken><Name>"
            xml = xml.replace(b"<Name>", token.encode())
        response.set_body(xml)

    return Fault("loop", after=after)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda: truncate(5_000), "broke"),
        (drop, "cannot be reached"),
        (lambda: status(500), "broke"),
        (lambda: status(503, "SlowDown"), "overloaded"),
        (lambda: status(200, "SlowDown"), "overloaded"),
        (no_token, "goes on, but not where"),
    ],
)
def test_a_listing_that_breaks_off_names_the_place(
    proxy: FaultProxy, big: Stored, fault: Callable[[], Fault], words: str
) -> None:
    bucket = Bucket(big.bucket, once(proxy.url))
    with (
        proxy.fault("ListObjectsV2", fault(), after=1),
        pytest.raises(InfrastructureError, match=words) as caught,
    ):
        list(bucket.walk("stores/"))
    assert str(caught.value).startswith(f"s3://{big.bucket}/stores/")


def test_a_listing_that_leads_in_circles_ends(proxy: FaultProxy, big: Stored) -> None:
    with (
        proxy.fault("ListObjectsV2", loop([])),
        pytest.raises(BadListing, match=re.escape(f"s3://{big.bucket}/: the listing leads back")),
    ):
        list(islice(Bucket(big.bucket, client(proxy.url)).walk(""), 20_000))


def test_an_unsorted_page_is_handed_on_as_it_is(proxy: FaultProxy, big: Stored) -> None:
    with proxy.fault("ListObjectsV2", unsorted()):
        found = listed(client(proxy.url), big.bucket, "stores/2")
    assert found == listed_by_boto3(big, "stores/2")[::-1]


def test_a_listing_that_is_cut_and_claims_to_be_whole_cannot_be_told_from_one(
    proxy: FaultProxy, big: Stored
) -> None:
    """Which is why deletions have limits, and each looks for its picture in the source again."""
    with proxy.fault("ListObjectsV2", cut_listing(7)):
        assert len(listed(client(proxy.url), big.bucket)) == 7
