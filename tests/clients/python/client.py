"""What an application does with the Python SDK, each record compared with what was sent. All that it knows of
the server is an endpoint, and by its certificate's authority the file in SSL_CERT_FILE."""

import os
import unittest

from s2_sdk import (
    S2,
    AppendInput,
    BasinConfig,
    CommandRecord,
    Compression,
    Encryption,
    Endpoints,
    EnsureStatus,
    FencingTokenMismatchError,
    ReadLimit,
    ReadUnwrittenError,
    Record,
    S2ServerError,
    SeqNum,
    SeqNumMismatchError,
    TailOffset,
    Timestamp,
)

ENDPOINT = os.environ["CLIENT_ENDPOINT"]
BASIN = os.environ["CLIENT_BASIN"]
CIPHER = Encryption(os.environ["CLIENT_CIPHER"]) if os.environ["CLIENT_CIPHER"] else None
KEY = os.environ["CLIENT_KEY"]
# The test looks for it in all that the upstream gets.
MARKER = os.environ["CLIENT_MARKER"].encode()


def text(number: int) -> bytes:
    return MARKER + b" %d" % number


def noise(number: int, length: int) -> bytes:
    start = text(number)
    return start + os.urandom(length - len(start))


def full() -> list[Record]:
    """A batch of 1 MiB, which does not fit any more once it is encrypted."""
    return [Record(body=noise(at, 2040)) for at in range(512)]


class Client(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.s2 = self.connect()
        self.basin = self.s2.basin(BASIN)

    def connect(self, **options) -> S2:
        s2 = S2("token", endpoints=Endpoints(account=ENDPOINT, basin=ENDPOINT), **options)
        self.addAsyncCleanup(s2.close)
        return s2

    def stream(self, name: str, s2: S2 | None = None):
        basin = s2.basin(BASIN) if s2 else self.basin
        return basin.stream(name, encryption_key=KEY if CIPHER else None)

    async def read_all(self, stream, sent: list[Record]) -> None:
        """Reads a stream from its start to its tail, and compares."""
        limit = ReadLimit(count=len(sent))
        seen = 0
        async for batch in stream.read_session(start=SeqNum(0), limit=limit):
            for record in batch.records:
                self.assertEqual(record.seq_num, seen)
                self.assertEqual(record.headers, sent[seen].headers)
                # No assertEqual: two bodies help nobody.
                self.assertTrue(record.body == sent[seen].body, f"record {seen}")
                seen += 1
        self.assertEqual(seen, len(sent))

    async def test_1_a_basin_gives_its_cipher_to_its_streams(self) -> None:
        config = BasinConfig(stream_cipher=CIPHER, create_stream_on_append=True)
        await self.s2.create_basin(BASIN, config=config)
        self.assertEqual((await self.s2.get_basin_config(BASIN)).stream_cipher, CIPHER)
        made = await self.basin.create_stream("unary")
        self.assertEqual(made.cipher, CIPHER)
        ensured = await self.basin.ensure_stream("unary")
        self.assertEqual(ensured.status, EnsureStatus.CONFIG_UNCHANGED)
        self.assertEqual(ensured.stream.cipher, CIPHER)

    async def test_2_unary_appends_and_reads(self) -> None:
        unary = self.stream("unary")
        first = 1_700_000_000_000
        headers = [(b"kind", b"bytes"), (b"\xff\x00", b"\xfe"), (b"a", b"")]
        sent = [
            Record(body=text(0) + "söm€ 😀".encode(), timestamp=first),
            Record(body=noise(1, 200), headers=headers, timestamp=first + 1),
            Record(body=text(2)),
        ]
        ack = await unary.append(AppendInput(records=sent))
        positions = (ack.start.seq_num, ack.end.seq_num, ack.tail.seq_num)
        self.assertEqual(positions, (0, 3, 3))
        self.assertEqual(ack.start.timestamp, first)
        self.assertEqual(await unary.check_tail(), ack.tail)

        batch = await unary.read(start=SeqNum(0))
        read = [(record.body, record.headers) for record in batch.records]
        self.assertEqual(read, [(record.body, record.headers) for record in sent])
        self.assertEqual([record.timestamp for record in batch.records][:2], [first, first + 1])
        batch = await unary.read(start=Timestamp(first + 1), limit=ReadLimit(count=1))
        self.assertEqual([record.seq_num for record in batch.records], [1])
        batch = await unary.read(start=TailOffset(1))
        self.assertEqual([record.body for record in batch.records], [text(2)])
        with self.assertRaises(ReadUnwrittenError) as unwritten:
            await unary.read(start=SeqNum(4))
        self.assertEqual(unwritten.exception.tail, ack.tail)

    async def test_3_a_stream_may_have_any_name(self) -> None:
        odd = self.stream("odd/na me?#%2f€")
        sent = [Record(body=text(0))]
        await odd.append(AppendInput(records=sent))
        await self.read_all(odd, sent)

    async def test_4_a_session_acks_and_delivers_every_batch(self) -> None:
        for compression in Compression:
            s2 = self.connect(compression=compression)
            many = self.stream(f"session-{compression.value}", s2)
            sent: list[Record] = []
            tickets = []
            async with many.append_session() as session:
                for number in range(100):
                    batch = [
                        Record(body=noise(number, 300 + at), headers=[(b"at", b"%d" % at)])
                        for at in range(1 + number % 9)
                    ]
                    if number == 20:
                        batch = full()
                    ticket = await session.submit(AppendInput(records=batch))
                    tickets.append((len(sent), len(batch), ticket))
                    sent += batch
                for start, count, ticket in tickets:
                    ack = await ticket
                    self.assertEqual((ack.start.seq_num, ack.end.seq_num), (start, start + count))
            await self.read_all(many, sent)

    async def test_5_a_producer_lands_every_record_once_and_in_order(self) -> None:
        many = self.stream("producer")
        sent = [Record(body=noise(at, 2048 if at % 3 else 64)) for at in range(3000)]
        async with many.producer() as producer:
            tickets = [await producer.submit(record) for record in sent]
            for seq_num, ticket in enumerate(tickets):
                self.assertEqual((await ticket).seq_num, seq_num)
        self.assertEqual((await many.check_tail()).seq_num, len(sent))
        await self.read_all(many, sent)

    async def test_6_a_read_session_follows_the_tail(self) -> None:
        followed = self.stream("followed")
        sent = [Record(body=text(at)) for at in range(20)]
        await followed.append(AppendInput(records=sent[:1]))
        seen = 0
        async with followed.read_session(start=SeqNum(0)) as session:
            async for batch in session:
                for record in batch.records:
                    self.assertEqual((record.seq_num, record.body), (seen, sent[seen].body))
                    seen += 1
                if seen == len(sent):
                    break
                if batch.records:
                    # The session stands at the tail when this arrives.
                    await followed.append(AppendInput(records=[sent[seen]]))
        self.assertEqual(seen, len(sent))

    async def test_7_conditions_fail_as_the_sdk_s_own_errors(self) -> None:
        guarded = self.stream("guarded")

        async def append(*records: Record, **conditions) -> None:
            await guarded.append(AppendInput(records=list(records), **conditions))

        await append(Record(body=text(0)), match_seq_num=0)
        with self.assertRaises(SeqNumMismatchError) as mismatch:
            await append(Record(body=text(1)), match_seq_num=7)
        self.assertEqual(mismatch.exception.expected_seq_num, 1)
        await append(CommandRecord.fence("mine"))
        with self.assertRaises(FencingTokenMismatchError) as fenced:
            await append(Record(body=text(2)), fencing_token="yours")
        self.assertEqual(fenced.exception.expected_fencing_token, "mine")
        kept = Record(body=text(2))
        await append(kept, CommandRecord.trim(2), fencing_token="mine", match_seq_num=2)
        with self.assertRaises(SeqNumMismatchError):
            async with guarded.append_session() as session:
                late = AppendInput(records=[Record(body=text(3))], match_seq_num=1)
                await (await session.submit(late))

        # The store trims in its own time.
        first = 0
        while first < 2:
            batch = await guarded.read(start=SeqNum(0), ignore_command_records=True)
            first = batch.records[0].seq_num
        self.assertEqual((first, batch.records[0].body), (2, kept.body))

    async def test_8_another_key_and_none_are_refused_where_there_is_a_cipher(self) -> None:
        wrong = self.basin.stream("unary", encryption_key=os.urandom(32) if CIPHER else KEY)
        before = await wrong.check_tail()
        if CIPHER is None:
            append = wrong.append(AppendInput(records=[Record(body=MARKER)]))
            for refused in [wrong.read(start=SeqNum(0)), append]:
                with self.assertRaises(S2ServerError) as error:
                    await refused
                caught = (error.exception.code, error.exception.status_code)
                self.assertEqual(caught, ("invalid", 422))
            self.assertEqual(await self.basin.stream("unary").check_tail(), before)
            return
        none = self.basin.stream("unary")
        for stream, expected in [(wrong, ("decryption_failed", 400)), (none, ("invalid", 422))]:
            batch = AppendInput(records=[Record(body=MARKER + b" not appended")])

            async def by_session(stream=stream, batch=batch) -> None:
                async with stream.append_session() as session:
                    await (await session.submit(batch))

            async def by_read_session(stream=stream) -> None:
                async for read in stream.read_session(start=SeqNum(0)):
                    self.fail(read)

            for refused in [
                stream.read(start=SeqNum(0)),
                stream.append(batch),
                by_session(),
                by_read_session(),
            ]:
                with self.assertRaises(S2ServerError) as error:
                    await refused
                caught = (error.exception.code, error.exception.status_code)
                self.assertEqual(caught, expected)
        self.assertEqual(await wrong.check_tail(), before)

    async def test_9_streams_are_listed_with_their_cipher_and_deleted(self) -> None:
        listed = [info async for info in self.basin.list_all_streams()]
        self.assertEqual([info.cipher for info in listed], [CIPHER] * 8)
        await self.basin.create_stream("gone")
        await self.basin.delete_stream("gone")
        live = [info.name async for info in self.basin.list_all_streams(prefix="go")]
        self.assertEqual(live, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
