"""What column names say: words that people use in click logs for ids, numbers, times and roles."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER = _set(
    """
    user uid member customer visitor viewer buyer account client reader gender sex age occupation
    """
)
ITEM = _set(
    """
    item product movie film video article news ad ads advert banner song track artist album book
    game app poi sku asin isbn listing creative content doc document goods show post page job hotel
    """
)
IDENTITY = _set(
    """
    id ids uid uuid guid code key hash sku asin isbn zip zipcode postcode postal type category cat
    cate categories class segment status state city country region province language lang brand
    gender sex occupation device browser os platform model network carrier domain url site campaign
    advertiser publisher weekday weekend month hour genre tag keyword
    """
)
NUMBER = _set(
    """
    count cnt num number total sum amount amt price cost revenue fee salary income qty quantity age
    score rating rate ratio share pct percent percentage mean avg average median min max std var
    duration seconds secs sec minutes mins hours days weeks months elapsed dwell length len size
    width height distance dist weight position pos rank views clicks impressions likes votes visits
    orders sales stock balance budget bid temperature lat lon latitude longitude recency frequency
    age_days probability prob
    """
)
TIME = _set(
    """
    time timestamp ts datetime date dt day epoch unixtime at utc created updated
    """
)
SEQUENCE = _set(
    """
    hist history histories seq sequence sequences behav behavior behaviors behaviour behaviours
    recent last clicked viewed visited watched bought purchased played past prev previous
    """
)
_FILLER = _set(
    """
    id ids list of the user uid my
    """
)
_LABELS = (
    "label", "labels", "target", "y", "click", "clicked", "clicks", "is_click", "is_clicked", "isclick",
    "ctr_label", "conversion", "converted", "is_converted", "purchase", "purchased", "is_purchased", "like",
    "liked", "is_liked", "response",
)  # fmt: skip
_GROUPS = (
    "user_id", "userid", "uid", "user", "member_id", "memberid", "customer_id", "customerid", "visitor_id",
    "visitorid", "account_id", "session_id", "sessionid", "device_id",
)  # fmt: skip
_ROW_IDS = _set(
    """
    id row_id rowid row index idx uuid request_id requestid impression_id impressionid event_id
    eventid record_id sample_id log_id unnamed_0 __index_level_0__
    """
)


def words(name: str) -> list[str]:
    """Lower-case words of a column name: ``histItemIDs`` → ``hist item ids``, ``I12`` → ``i 12``."""
    return [piece.lower() for piece in _PIECE.findall(name)]


def is_identity(name: str) -> bool:
    """Whether the name says that values are ids or codes."""
    found = words(name)
    if not found:
        return False
    entities = USER | ITEM
    glued = any(word.endswith("id") and word[:-2] in entities for word in found)
    return glued or found[-1] in IDENTITY or (found[-1] in entities and found[-1] not in NUMBER)


def is_number(name: str) -> bool:
    """Whether the name says that values are counted or measured."""
    return not is_identity(name) and bool(NUMBER & set(words(name)))


def is_time(name: str) -> bool:
    """Whether the name says that values are times or dates."""
    return bool(TIME & set(words(name)))


def is_sequence(name: str) -> bool:
    """Whether the name says that a list is in the order of time."""
    return bool(SEQUENCE & set(words(name)))


def is_row_id(name: str) -> bool:
    """Whether the name says that values number the rows."""
    return "_".join(words(name)) in _ROW_IDS or name in _ROW_IDS


def side_of(name: str) -> str | None:
    """``user`` or ``item`` where the name says so."""
    found = set(words(name))
    if found & ITEM and not found & SEQUENCE:
        return "item"
    return "user" if found & (USER | SEQUENCE) else None


def likely_label(names: Iterable[str]) -> list[str]:
    """Names that are usual for labels, the most usual first."""
    return _ranked(names, _LABELS)


def likely_group(names: Iterable[str]) -> list[str]:
    """Names that are usual for users, the most usual first."""
    return _ranked(names, _GROUPS)


def subject(name: str) -> str:
    """What a list is a list of: ``hist_item_ids`` → ``item``, ``history`` → nothing."""
    kept = [word for word in words(name) if word not in SEQUENCE | _FILLER]
    return "_".join(word.removesuffix("s") for word in kept)


def entity(name: str) -> str:
    """What a column's values name: ``item_id`` → ``item``, ``userid`` → ``user``."""
    found = words(name)
    kept = [word for word in found if word not in ("id", "ids")] or found
    last = kept[-1]
    if last.endswith("id") and last[:-2] in USER | ITEM:
        kept[-1] = last[:-2]
    return "_".join(word.removesuffix("s") for word in kept)


def family(name: str) -> str | None:
    """The stem of a numbered name: ``I12`` → ``I``; None where there is no number at the end."""
    match = re.fullmatch(r"(.*?\D)\d+", name)
    return match[1] if match else None


def _ranked(names: Iterable[str], known: tuple[str, ...]) -> list[str]:
    order = {name: place for place, name in enumerate(known)}
    found = [(order[key], name) for name in names if (key := "_".join(words(name))) in order]
    return [name for _, name in sorted(found)]
