"""The pure rules, over all their inputs or many drawn ones: tables, identities, canonical values, doubt, leases, codecs."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from surefoot.effects import doubt, states
from surefoot.effects.keys import BadEffect, KeyTemplate, fingerprint, identify
from surefoot.effects.states import ENDS_GENERATION, OPEN, Event, State
from surefoot.journal.values import Unserializable, canonical, canonical_bytes, codec_of
from surefoot.leases.rules import MARGIN_MS, Life, SessionFacts, judge, may_act
from surefoot.leases.tables import TOKEN_BITS, token_of
from surefoot.runs import life
from surefoot.runs.life import ENDED, RunEvent, RunState
from surefoot.runs.live.replay import step_key

quick = settings(max_examples=150, deadline=None, derandomize=True, database=None)

# -- lives -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_of_an_effects_life(state: State, event: Event) -> None:
    """Would catch a way out of an outcome, a doubt that opens again what is known, and a takeover that decides."""
    after = states.next_state(state, event)
    if state not in OPEN:
        assert after in ({State.COMPENSATED} if (state, event) == (State.DONE, Event.COMPENSATED) else {None})
    elif event is Event.TAKEOVER:
        assert after is State.CLAIMED
    elif event is Event.COMPENSATED:
        assert after is None
    elif event is Event.IN_DOUBT:
        assert after is (State.UNKNOWN if state is State.CLAIMED else None)
    else:
        assert after is {Event.DONE: State.DONE, Event.NOT_DONE: State.NOT_DONE}[event]
    assert set(State) - OPEN - ENDS_GENERATION == {State.DONE}


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("event", RunEvent)
def test_every_pair_of_a_runs_life(state: RunState, event: RunEvent) -> None:
    """Would catch an end that is left, and a run that ends or parks without being held."""
    after = life.next_state(state, event)
    if state in ENDED:
        assert after is None
    if after in ENDED or event in (RunEvent.TAKEN_OVER, RunEvent.HANDED_BACK):
        assert after is None or state is RunState.RUNNING
    if after is RunState.RUNNING:
        assert (state, event) == (RunState.PENDING, RunEvent.CLAIMED)


# -- identities --------------------------------------------------------------------------------------------------------

SEPARATORS = ("/", ":", "-", "%", " and ", "%2F", "|", "2", "~", "\u2500")
parts = st.one_of(st.text(min_size=1, max_size=6), st.text(alphabet="%2F:/-|ad n5", min_size=1, max_size=6))


def _template(separator: str, end: str | None = None) -> KeyTemplate:
    def call(a: str, b: str) -> None: ...

    end = separator if end is None else end
    return KeyTemplate(f"k{separator}{{a}}{separator}{{b}}{end}", inspect.signature(call), "call")


@quick
@given(separator=st.sampled_from(SEPARATORS), one=st.tuples(parts, parts), other=st.tuples(parts, parts))
def test_different_values_never_make_one_key(separator: str, one: tuple[str, str], other: tuple[str, str]) -> None:
    """Would catch ("a/b", "c") and ("a", "b/c") under one key: one of two payments never made."""
    template = _template(separator)
    keys = [template.key(dict(zip("ab", pair, strict=True))) for pair in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_values_that_look_like_escapes_make_keys_of_their_own(separator: str) -> None:
    """Would catch a separator that is the mark of escapes, or whose escape looks like another's: drawn too seldom."""
    template, found = _template(separator, end=""), dict[str, tuple[str, ...]]()
    words = ["".join(word) for n in range(1, 4) for word in itertools.product(f"%250{separator[0]}", repeat=n)]
    tails = [f"{escape}{word}{separator}0" for escape in ("25", "2525", "2500") for word in ("0", "%", "2")]
    for pair in itertools.product(words, words[:40] + tails):
        assert found.setdefault(template.key(dict(zip("ab", pair, strict=True))), pair) == pair


@quick
@given(separator=st.sampled_from(SEPARATORS), a=parts, b=parts, where=st.integers(1, 5))
def test_moving_the_border_between_two_values_moves_the_key(separator: str, a: str, b: str, where: int) -> None:
    """Would catch the collision that drawing at random seldom meets: the same letters, divided elsewhere."""
    text = f"{a}{separator}{b}{separator}{a}"
    found = [place for place in range(len(text)) if text.startswith(separator, place)]
    keys = {
        _template(separator).key({"a": text[:place], "b": text[place + len(separator) :]})
        for place in found
        if text[:place] and text[place + len(separator) :]
    }
    pairs = {
        (text[:place], text[place + len(separator) :])
        for place in found
        if text[:place] and text[place + len(separator) :]
    }
    assert len(keys) == len(pairs)


PARTS = st.tuples(st.text("ab,:1", max_size=4), st.text("ab,:1", max_size=4), st.text("ab,:1", min_size=1, max_size=4))


@quick
@given(PARTS, PARTS)
def test_a_digest_keeps_its_parts_apart(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Would catch scope, name and key that run into each other."""
    assert (identify(*one, b"").digest == identify(*other, b"").digest) == (one == other)


@quick
@given(st.text(min_size=1, max_size=20), st.integers(1, 1_000), st.integers(1, 1_000))
def test_an_idempotency_key_is_one_per_generation(key: str, one: int, other: int) -> None:
    """Would catch a key per attempt, and a service's stored refusal met again by the next generation."""
    identity = identify("app", "pay", key, fingerprint(b"{}"))
    again = identify("app", "pay", key, fingerprint(b"{}"))
    assert (identity.idempotency_key(one) == again.idempotency_key(other)) == (one == other)
    assert len(identity.idempotency_key(one)) <= 255


@quick
@given(st.sampled_from(("", None, [], {})))
def test_an_empty_value_makes_no_key(value: Any) -> None:
    """Would catch one key for all calls without an order."""
    with pytest.raises(BadEffect):
        _template("/").key({"a": value, "b": "x"})


names = st.text(alphabet="ab/%#[]2F1", min_size=1, max_size=5)


@quick
@given(st.tuples(names, st.none() | names), st.tuples(names, st.none() | names), st.integers(1, 3), st.integers(1, 3))
def test_a_steps_name_never_climbs_out_of_its_parent(
    one: tuple[str, str | None], other: tuple[str, str | None], n: int, m: int
) -> None:
    """Would catch a step called "a/b" that is taken for step b inside step a."""
    assert "/" not in step_key("", *one, n)
    inner = step_key(step_key("", *one, n), *other, m)
    assert inner.count("/") == 1


@quick
@given(st.integers(1, 100), st.integers(1, 2**TOKEN_BITS - 1), st.integers(1, 100), st.integers(1, 2**TOKEN_BITS - 1))
def test_tokens_of_a_later_incarnation_are_greater(one: int, a: int, other: int, b: int) -> None:
    """Would catch a restored store whose tokens a service takes for older ones."""
    assert (token_of(one, a) < token_of(other, b)) == ((one, a) < (other, b))


# -- values ------------------------------------------------------------------------------------------------------------

letters = st.characters(codec="utf-8")

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(letters, max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(
        letters, max_size=4), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@quick
@given(plain)
def test_json_values_come_back_as_they_went(value: Any) -> None:
    """Would catch a value that replay sees otherwise than the first execution did."""
    codec = codec_of(object, "test")
    data, copy = codec.dump(value)
    assert copy == codec.load(data) == value
    assert codec.dump(copy)[0] == data


@quick
@given(
    st.one_of(
        st.tuples(st.just(Decimal), st.decimals(allow_nan=False, allow_infinity=False)),
        st.tuples(st.just(date), st.dates()),
        st.tuples(st.just(datetime), st.datetimes(timezones=st.just(UTC))),
        st.tuples(st.just(timedelta), st.timedeltas(timedelta(-999_999), timedelta(999_999))),
        st.tuples(st.just(list[int]), st.lists(st.integers())),
        st.tuples(st.just(dict[str, Decimal]), st.dictionaries(st.text(letters),
                                                               st.decimals(allow_nan=False, allow_infinity=False))),
        st.tuples(st.just(tuple[int, str]), st.tuples(st.integers(), st.text(letters))),
        st.tuples(st.just(bytes), st.text(letters).map(str.encode)),
    )
)  # fmt: skip
def test_declared_values_come_back_as_they_went(case: tuple[Any, Any]) -> None:
    """Would catch a decimal that comes back as a float, a tuple that comes back as a list."""
    declared, value = case
    codec = codec_of(declared, "test")
    try:
        data, copy = codec.dump(value)
    except Unserializable:
        return
    assert copy == codec.load(data) == value
    assert type(copy) is type(value)


@quick
@given(
    st.sampled_from([object(), {1: "x"}, (1, 2), {"x": (1,)}, math.nan, math.inf, b"x", {"when": datetime.now(UTC)}])
)
def test_what_json_has_no_equal_for_is_refused_where_it_is_written(value: Any) -> None:
    """Would catch a value that is recorded as something else."""
    with pytest.raises(Unserializable):
        codec_of(object, "test").dump(value)


@quick
@given(plain)
def test_the_canonical_form_is_its_own_canonical_form(value: Any) -> None:
    """Would catch arguments that no longer agree with themselves after a replay."""
    form = canonical(value)
    assert canonical(form) == form
    assert canonical_bytes(form) == canonical_bytes(value)


@quick
@given(st.dictionaries(st.text(letters, max_size=3), st.integers(), max_size=5),
       st.randoms(use_true_random=False))  # fmt: skip
def test_the_order_of_names_does_not_matter(value: Mapping[str, int], draw: Any) -> None:
    """Would catch a conflict between two writings of one call."""
    order = list(value)
    draw.shuffle(order)
    assert canonical_bytes({name: value[name] for name in order}) == canonical_bytes(value)


@quick
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3),
       st.integers(0, 4))  # fmt: skip
def test_equal_amounts_have_one_form(amount: Decimal, zeros: int) -> None:
    """Would catch 12.5 and 12.50 as a conflict, and 12.5 and 125 as the same."""
    longer = amount.quantize(Decimal(1).scaleb(-3 - zeros))
    assert canonical(longer) == canonical(amount)
    assert Decimal(str(canonical(amount))) == amount


# -- doubt -------------------------------------------------------------------------------------------------------------

facts = st.builds(
    doubt.Facts,
    first_sent_ms=st.integers(0, 10**7),
    first_sent_boot_ms=st.none() | st.integers(0, 10**7),
    last_sent_boot_ms=st.integers(0, 10**7),
    now_ms=st.integers(0, 10**7),
    now_boot_ms=st.integers(0, 10**7),
    sends=st.integers(0, 8),
    asks=st.integers(0, 8),
    is_precondition_failed=st.booleans(),
)
classes = st.one_of(
    st.builds(doubt.Resend, key_ttl=st.floats(0.01, 10_000)),
    st.builds(doubt.Probe, ask=st.just(doubt.NotLanded), longest_life=st.floats(0.01, 10_000)),
    st.sampled_from([doubt.Overwrite(), doubt.Overwrite(lambda: True), doubt.Read(), doubt.Transactional(),
                     doubt.AskPerson()]),
)  # fmt: skip


@quick
@given(classes, facts)
def test_no_class_does_what_its_service_does_not_offer(in_doubt: doubt.InDoubt, known: doubt.Facts) -> None:
    """Would catch a blind retry, and a wait without end."""
    move = doubt.next_move(in_doubt, known)
    if isinstance(move, doubt.SendAgain):
        assert isinstance(in_doubt, doubt.Resend | doubt.Overwrite | doubt.Read)
        assert known.sends < doubt.RESENDS_MAX
        assert 0 <= move.after_ms <= 5_000
    if isinstance(move, doubt.AskService):
        assert isinstance(in_doubt, doubt.Probe)
        assert known.asks < doubt.ASKS_MAX
    if isinstance(in_doubt, doubt.AskPerson | doubt.Transactional):
        assert isinstance(move, doubt.Park)
    if isinstance(move, doubt.ReadItBack):
        assert isinstance(in_doubt, doubt.Overwrite)
        assert known.is_precondition_failed


@quick
@given(st.floats(0.01, 10_000), facts)
def test_a_probe_is_asked_behind_its_fence(longest_life: float, known: doubt.Facts) -> None:
    """Would catch a question that a straggler makes a lie of."""
    assume(known.asks < doubt.ASKS_MAX)
    probe = doubt.Probe(doubt.NotLanded, longest_life)
    move = doubt.next_move(probe, known)
    assert isinstance(move, doubt.AskService)
    asked_boot_ms = known.now_boot_ms + move.after_ms
    assert asked_boot_ms >= min(known.last_sent_boot_ms, known.now_boot_ms) + probe.longest_life_ms


@quick
@given(st.floats(0.01, 10_000), facts)
def test_a_key_is_not_sent_again_after_its_life(key_ttl: float, known: doubt.Facts) -> None:
    """Would catch a resend that the service takes for a new request, and one on the word of a clock that jumped."""
    resend = doubt.Resend(key_ttl)
    move = doubt.next_move(resend, known)
    by_wall_ms = known.now_ms - known.first_sent_ms
    if isinstance(move, doubt.SendAgain):
        assert by_wall_ms < resend.key_ttl_ms
        if known.first_sent_boot_ms is not None:
            assert known.now_boot_ms - known.first_sent_boot_ms < resend.key_ttl_ms
            assert abs(by_wall_ms - (known.now_boot_ms - known.first_sent_boot_ms)) <= doubt.CLOCK_TOLERANCE_MS


# -- leases ------------------------------------------------------------------------------------------------------------


@quick
@given(st.builds(SessionFacts, boot_id=st.sampled_from(("a", "b")), renewed_boot_ms=st.integers(0, 30_000),
                 ttl_ms=st.integers(2_000, 20_000), is_closed=st.booleans()),
       st.sampled_from(("a", "b")), st.integers(0, 60_000), st.booleans())  # fmt: skip
def test_a_holder_stops_before_others_begin(seen: SessionFacts, boot_id: str, now_ms: int, is_locked: bool) -> None:
    """Would catch two that act at once by the lease alone, a live one taken for dead, a dead one waited for."""
    judged = judge(seen, boot_id=boot_id, now_boot_ms=now_ms, is_locked=is_locked)
    is_gone = seen.is_closed or seen.boot_id != boot_id or not is_locked
    assert (judged is Life.DEAD) == is_gone
    if not is_gone and may_act(seen, now_boot_ms=now_ms):
        assert judged is Life.ALIVE
        assert judge(seen, boot_id=boot_id, now_boot_ms=now_ms + MARGIN_MS - 1, is_locked=True) is Life.ALIVE
    if judged is Life.EXPIRED:
        assert not may_act(seen, now_boot_ms=now_ms)
        assert judge(seen, boot_id=boot_id, now_boot_ms=now_ms + 1, is_locked=True) is Life.EXPIRED
