# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, annotation_typing=False
"""The short way through the gRPC door, compiled: see `lane.py`, which says for which requests, and what it leaves out."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

from turnout.entrypoints._lane cimport Lane, LaneItem, clock

import logging

cdef object _log = logging.getLogger("turnout")

# Of RFC 9113, and of `frames.py` and `messages.py`, which call them the same.
cdef int _DATA = 0, _HEADERS = 1, _END_STREAM = 1, _END_HEADERS = 4
cdef Py_ssize_t _FRAME = 9, _PREFIX = 5, _MIN_FRAME = 16384
#: What a complete message is worth in frames that carry no work.
cdef int _REFUND = 4
#: The types of outputs, by numpy's letter for each, whose elements are sent as they lie in memory.
cdef str _PLAIN = "?bBhHiIlLqQefd"


cdef inline Py_ssize_t _three(const unsigned char *at) noexcept nogil:
    return at[0] << 16 | at[1] << 8 | at[2]


cdef inline uint32_t _four(const unsigned char *at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | <uint32_t> at[3]


cdef inline char *_put(char *at, const char *text, Py_ssize_t size) noexcept nogil:
    memcpy(at, text, size)
    return at + size


cdef inline char *_put_word(char *at, uint32_t word) noexcept nogil:
    at[0], at[1], at[2], at[3] = word >> 24 & 255, word >> 16 & 255, word >> 8 & 255, word & 255
    return at + 4


cdef inline char *_put_frame(char *at, Py_ssize_t length, int kind, int flags, uint32_t stream_id) noexcept nogil:
    """The nine bytes before a frame's payload."""
    at[0], at[1], at[2], at[3], at[4] = length >> 16 & 255, length >> 8 & 255, length & 255, kind, flags
    return _put_word(at + 5, stream_id)


cdef inline Py_ssize_t _varint_size(Py_ssize_t number) noexcept nogil:
    cdef Py_ssize_t size = 1
    while number > 127:
        number >>= 7
        size += 1
    return size


cdef inline char *_put_varint(char *at, Py_ssize_t number) noexcept nogil:
    while number > 127:
        at[0] = <char> (number & 127 | 128)
        number >>= 7
        at += 1
    at[0] = <char> number
    return at + 1


cdef struct Pieces:
    # Offsets into a ModelInferRequest: where its id's field and the text in it begin, where both end (0: it has none),
    # where what follows the id and says what the tensors are ends (0: nothing follows), and its only raw tensor.
    Py_ssize_t id_from, id_text, id_to, head_to, raw, raw_size


cdef bint _split(const unsigned char *message, Py_ssize_t size, Pieces *found) noexcept nogil:
    """What `v2_grpc_wire.split` does, for fewer messages: False also for an id that is empty or not plain ASCII, for
    lengths written in more than three bytes, and for any number of raw tensors but one.
    """
    cdef Py_ssize_t at = 0, length, body
    cdef int tag, last = 0, shift, raws = 0
    found.id_from = found.id_text = found.id_to = found.head_to = 0
    while at < size:
        tag = message[at]
        if tag < last or tag & 7 != 2 or not 10 <= tag <= 58:
            return False
        body = at + 1
        length = shift = 0
        while True:
            if body >= size or shift > 14:
                return False
            length |= <Py_ssize_t> (message[body] & 127) << shift
            shift += 7
            body += 1
            if message[body - 1] < 128:
                break
        if length > size - body:
            return False
        if tag == 58:
            raws += 1
            found.raw, found.raw_size = body, length
        elif tag == 26:
            if last == 26 or not length:
                return False
            found.id_from, found.id_text, found.id_to = at, body, body + length
            for at in range(body, body + length):
                if not 32 <= message[at] <= 126:
                    return False
        else:
            found.head_to = body + length
        last = tag
        at = body + length
    return raws == 1


cdef class Packed:
    """The outputs of one batch, and once an answer is made of them, their bytes: each row of each output is a span."""

    cdef list texts, arrays, spans
    cdef tuple names
    cdef dict fields
    cdef Py_ssize_t rows
    cdef bint good

    cdef int pack(self, dict outputs) except -1:
        """Whether every output is a row-wise array of plain numbers is said by `good`; copies nothing."""
        self.texts, self.arrays, self.spans, self.fields = None, [], [], {}
        self.names = tuple(outputs)
        self.rows = -1
        self.good = False
        for array in outputs.values():
            dtype = array.dtype
            shape = array.shape
            if dtype.char not in _PLAIN or not dtype.isnative or not shape or not array.size:
                return 0
            if self.rows < 0:
                self.rows = shape[0]
            elif self.rows != <Py_ssize_t> shape[0]:
                return 0
            self.arrays.append(array)
            self.spans.append(<Py_ssize_t> array.nbytes // self.rows)
        self.good = len(self.arrays) > 0
        return 0

    cdef bint copy(self) except -1:
        """Keeps the bytes; False where they are not as many as was measured, which a class of arrays may do."""
        texts = []
        for array, span in zip(self.arrays, self.spans):
            text = array.tobytes()
            if type(text) is not bytes or len(text) != span * self.rows:
                self.good = False
                return False
            texts.append(text)
        self.texts = texts
        return True

    cdef list fields_of(self, Py_ssize_t rows, object field):
        """What says of each output its name, type and shape in an answer of so many rows."""
        found = self.fields.get(rows)
        if found is None:
            found = self.fields[rows] = [field(name, array[:rows]) for name, array in zip(self.names, self.arrays)]
        return found


cdef class Texts:
    """What does not change from answer to answer: of the message before the id and the prediction id, of the trailers."""

    cdef bytes start, parameters, trailers
    cdef Py_ssize_t id_length

    def __init__(self, id_length, start, parameters, trailers):
        self.id_length = id_length
        self.start = start
        self.parameters = parameters
        self.trailers = trailers


cdef class MessageLane(Lane):
    """One remembered head of messages and the model that it leads to."""

    cdef object field
    cdef bytes block, key
    cdef Py_ssize_t rows, most

    def __init__(self, **known):
        super().__init__(**known)
        self.field = known["field"]
        self.block = known["block"]
        self.key = known["key"]
        self.rows = known["rows"]
        self.most = known["most"]

    cdef bint begin(self, object streams, object head, uint32_t stream_id, const unsigned char *message, Py_ssize_t size,
                    Pieces *pieces) except -1:
        """Takes the message to the queue; False where it has to go the long way."""
        cdef double now = clock(), left = min(self.left, <double> head.timeout)
        cdef CallItem item
        if pieces.raw_size != self.rows * self.row_bytes or self.too_late(now, left, False):
            return False
        if not self.leads_there():
            streams.calls.lanes.pop(self.key, None)
            return False
        if self.refuses(now + left, now, self.rows):
            return False
        item = CallItem.__new__(CallItem)
        item.rows = self.rows
        item.prepare(self, now, now + left)
        item.packed = PyBytes_FromStringAndSize(<const char *> message + pieces.raw, pieces.raw_size)
        if pieces.id_text:
            item.id_bytes = PyBytes_FromStringAndSize(<const char *> message + pieces.id_text, pieces.id_to - pieces.id_text)
        item.table = streams
        item.number = stream_id
        item.head = head
        item.size = size
        item.send_window = streams.out.initial_window
        streams.open[stream_id] = item
        self.queue(item)
        return True

    cdef bint send(self, CallItem item, object whole, Py_ssize_t first, double now) except -1:
        """Sends the answer; False where it has to be made the long way."""
        cdef Packed packed
        cdef Texts texts
        cdef str prediction_id = None
        cdef bytes answer, text
        cdef Py_ssize_t number, size, span, id_length = 0, own = 0, total, count, message
        cdef const char *id_text
        cdef char *at
        table = item.table
        out = table.out
        if item.closed or out.paused or not out._told or not self.sealed():
            return False
        found = whole.packed
        if found is None:
            packed = Packed.__new__(Packed)
            packed.pack(whole.outputs)
            whole.packed = packed
        else:
            packed = <Packed> found
        if not packed.good or first + item.rows > packed.rows:
            return False
        twin = whole.twin
        known = PyDict_GetItem(self.texts, twin)
        if known != NULL:
            texts = <Texts> <object> known
        elif len(self.texts) > 64:
            return False
        else:
            prediction_id = self.id_start + self.token()
            id_length = len(prediction_id)
            texts = self.texts[twin] = Texts(id_length, *self.text_maker(self, twin, id_length))
        id_length = texts.id_length
        fields = packed.fields_of(item.rows, self.field)
        # How long the message will be, then the three frames into one piece of memory.
        message = PyBytes_GET_SIZE(texts.start) + PyBytes_GET_SIZE(texts.parameters) + id_length
        if item.id_bytes is not None:
            own = PyBytes_GET_SIZE(item.id_bytes)
            message += 1 + _varint_size(own) + own
        count = len(packed.spans)
        for number in range(count):
            span = <Py_ssize_t> packed.spans[number] * item.rows
            message += PyBytes_GET_SIZE(<bytes> fields[number]) + 1 + _varint_size(span) + span
        size = _PREFIX + message
        if size > self.most or size > <Py_ssize_t> out.window or size > item.send_window or size > <Py_ssize_t> out.max_frame:
            return False
        if prediction_id is None:
            prediction_id = self.id_start + self.token()
        id_text = PyUnicode_AsUTF8AndSize(prediction_id, &id_length)
        if id_length != texts.id_length:
            return False
        if packed.texts is None and not packed.copy():
            return False
        total = 3 * _FRAME + PyBytes_GET_SIZE(self.block) + size + PyBytes_GET_SIZE(texts.trailers) + id_length
        answer = PyBytes_FromStringAndSize(NULL, total)
        at = _put_frame(PyBytes_AS_STRING(answer), PyBytes_GET_SIZE(self.block), _HEADERS, _END_HEADERS, item.number)
        at = _put(at, PyBytes_AS_STRING(self.block), PyBytes_GET_SIZE(self.block))
        at = _put_frame(at, size, _DATA, 0, item.number)
        at[0] = 0
        at = _put_word(at + 1, <uint32_t> message)
        at = _put(at, PyBytes_AS_STRING(texts.start), PyBytes_GET_SIZE(texts.start))
        if own:
            at[0] = 26
            at = _put_varint(at + 1, own)
            at = _put(at, PyBytes_AS_STRING(item.id_bytes), own)
        at = _put(at, PyBytes_AS_STRING(texts.parameters), PyBytes_GET_SIZE(texts.parameters))
        at = _put(at, id_text, id_length)
        for number in range(count):
            text = fields[number]
            at = _put(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        for number in range(count):
            text = packed.texts[number]
            span = PyBytes_GET_SIZE(text) // packed.rows
            at[0] = 50
            at = _put_varint(at + 1, span * item.rows)
            at = _put(at, PyBytes_AS_STRING(text) + first * span, item.rows * span)
        at = _put_frame(
            at, PyBytes_GET_SIZE(texts.trailers) + id_length, _HEADERS, _END_HEADERS | _END_STREAM, item.number
        )
        at = _put(at, PyBytes_AS_STRING(texts.trailers), PyBytes_GET_SIZE(texts.trailers))
        at = _put(at, id_text, id_length)
        if at != PyBytes_AS_STRING(answer) + total:
            raise SystemError("an answer is not as long as it was measured")
        self.seal.answered.count += 1
        out.window -= size
        out._parts.append(answer)
        item.written = item.closed = True
        streams = table.open
        del streams[item.number]
        if not out.scheduled:
            out.scheduled = True
            out._pass_end.add(out)
        if not streams:
            table._finished()
        self.tell(item, whole, now, item.size, size, item.id, table.peer, prediction_id)
        return True


cdef class CallItem(LaneItem):
    """One call of a lane: among its connection's streams it stands where a `Stream` would whose client has sent all."""

    cdef public object table, head, reader, message, out, trailers
    cdef public uint32_t number
    cdef public Py_ssize_t size, send_window, out_left, held, unread
    cdef public bint closed

    @property
    def id(self):
        if self.id_bytes is None:
            return self.head.request_id
        return PyUnicode_DecodeASCII(PyBytes_AS_STRING(self.id_bytes), PyBytes_GET_SIZE(self.id_bytes), NULL)

    @property
    def ended(self):
        return True

    @property
    def streaming(self):
        return False

    @property
    def work(self):
        return None if self.over else self

    cdef bint finish(self, object whole, Py_ssize_t first, double now) except -1:
        return (<MessageLane> self.lane).send(self, whole, first, now)

    def stop(self, failure):
        """The stream has ended before its answer."""
        self.cancel(failure)


cdef bint _take(object streams, bytes block, uint32_t stream_id, const unsigned char *data,
                Py_ssize_t size) except -1:
    """Whether HEADERS and DATA of one call were all of a request that goes the short way; then it is on its way."""
    cdef Pieces pieces
    cdef const unsigned char *message = data + _PREFIX
    cdef Py_ssize_t length = size - _PREFIX, tail, window
    cdef bytes head_bytes
    cdef PyObject *found
    if length <= 0 or data[0] or _four(data + 1) != <uint32_t> length or not stream_id & 1:
        return False
    if stream_id <= <uint32_t> streams.last_id or stream_id > <uint32_t> streams.last_accepted:
        return False
    found = PyDict_GetItem(streams._memo, block)
    if found == NULL:
        return False
    head = <object> found
    if not head.usual or not _split(message, length, &pieces):
        return False
    tail = pieces.head_to - pieces.id_to
    if pieces.id_to and tail > 0:
        head_bytes = PyBytes_FromStringAndSize(NULL, pieces.id_from + tail)
        memcpy(PyBytes_AS_STRING(head_bytes), message, pieces.id_from)
        memcpy(PyBytes_AS_STRING(head_bytes) + pieces.id_from, message + pieces.id_to, tail)
    else:
        head_bytes = PyBytes_FromStringAndSize(<const char *> message, pieces.head_to if tail > 0 else pieces.id_from)
    calls = streams.calls
    found = PyDict_GetItem(calls.lanes, head_bytes)
    if found == NULL or (type(<object> found) is float and clock() >= <double> <object> found):
        lane = calls.lane_of(calls, head, head_bytes)
    else:
        lane = <object> found
    if type(lane) is not MessageLane:
        return False
    bodies = streams.bodies
    window = <Py_ssize_t> bodies._recv_left - size
    if window < <Py_ssize_t> bodies._window >> 1 or size > <Py_ssize_t> streams._stream_window:
        return False  # the long way opens the window again
    if length > <Py_ssize_t> calls.limits.max_message_bytes or len(streams.open) >= <Py_ssize_t> streams._max_streams:
        return False
    if not (<MessageLane> lane).begin(streams, head, stream_id, message, length, &pieces):
        return False
    streams.last_id = stream_id
    bodies._recv_left = window
    overhead = streams.overhead
    if <double> overhead.left < <double> overhead._burst:
        overhead.refund(_REFUND)
    return True


def receive(connection, data):
    """Takes the whole frames at the start of what was received; returns how many bytes that were.

    Calls of a lane go the short way. All other frames are given to the connection, in their order.
    """
    cdef const unsigned char[::1] view = data
    cdef const unsigned char *start = &view[0]
    cdef const unsigned char *at = start
    cdef const unsigned char *end = start + view.shape[0]
    cdef const unsigned char *stop
    cdef Py_ssize_t length, size
    cdef uint32_t stream_id
    cdef bint usual, taken
    control, streams = connection.control, connection.streams
    usual = control.settled and not control.block_open
    while end - at >= _FRAME:
        length = _three(at)
        stop = at + _FRAME + length
        if length > _MIN_FRAME or stop > end:
            break
        stream_id = _four(at + 5) & 0x7FFFFFFF
        if (
            usual and at[3] == _HEADERS and at[4] == _END_HEADERS and end - stop >= _FRAME and stop[3] == _DATA
            and stop[4] == _END_STREAM and _four(stop + 5) & 0x7FFFFFFF == stream_id
        ):
            size = _three(stop)
            if size <= _MIN_FRAME and end - stop - _FRAME >= size:
                try:
                    taken = _take(
                        streams, PyBytes_FromStringAndSize(<const char *> at + _FRAME, length), stream_id, stop + _FRAME, size
                    )
                except Exception:
                    _log.exception("a call could not be taken the short way")
                    taken = stream_id in streams.open  # else it was not taken at all
                if taken:
                    at = stop + _FRAME + size
                    continue
        connection._frame(at[3], at[4], stream_id, data[at + _FRAME - start : stop - start])
        at = stop
        if connection._ending:
            return end - start
        usual = control.settled and not control.block_open
    return at - start
