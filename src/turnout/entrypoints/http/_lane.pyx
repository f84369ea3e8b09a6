# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, annotation_typing=False
"""The short way through the HTTP door, compiled: see `lane.py`, which says for which requests, and what it leaves out."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from turnout.entrypoints._lane cimport Lane, LaneItem, clock

import logging

import orjson

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *, char **, PyObject *) except? -1.0

cdef object _NUMPY = orjson.OPT_SERIALIZE_NUMPY
cdef object _dumps = orjson.dumps
cdef object _log = logging.getLogger("turnout")

#: Doubles hold every whole number up to this. Typed, or each comparison would make a Python int.
cdef uint64_t _EXACT = <uint64_t> 1 << 53
cdef double[23] _TEN
cdef int _power
_TEN[0] = 1.0
for _power in range(1, 23):
    _TEN[_power] = _TEN[_power - 1] * 10.0


cdef inline const char *_blank(const char *at, const char *end) noexcept nogil:
    while at < end and (at[0] == 32 or at[0] == 10 or at[0] == 13 or at[0] == 9):
        at += 1
    return at


cdef const char *_plain_text(const char *at, const char *end, Py_ssize_t *size) noexcept nogil:
    """A string of printable ASCII without escapes, from behind its first quote; NULL where it is any other."""
    cdef const char *start = at
    while at < end:
        if at[0] == 34:
            size[0] = at - start
            return at + 1
        if at[0] < 32 or at[0] > 126 or at[0] == 92:
            return NULL
        at += 1
    return NULL


cdef const char *_natural(const char *at, const char *end, int64_t *value) noexcept nogil:
    """A plain number of 0 or more; NULL for any other."""
    cdef int64_t found = 0
    cdef const char *start = at
    while at < end and 48 <= at[0] <= 57:
        if at - start > 15:
            return NULL
        found = found * 10 + (at[0] - 48)
        at += 1
    if at == start or (start[0] == 48 and at - start > 1):
        return NULL
    value[0] = found
    return at


cdef const char *_whole(const char *at, const char *end, int64_t *value) noexcept nogil:
    """An integer of at most 18 digits; NULL for any other."""
    cdef bint negative = at < end and at[0] == 45
    cdef uint64_t found = 0
    cdef const char *start
    if negative:
        at += 1
    start = at
    while at < end and 48 <= at[0] <= 57:
        if at - start >= 18:
            return NULL
        found = found * 10 + <uint64_t> (at[0] - 48)
        at += 1
    if at == start or (start[0] == 48 and at - start > 1):
        return NULL
    if at < end and (at[0] == 46 or at[0] == 101 or at[0] == 69):
        return NULL
    value[0] = -<int64_t> found if negative else <int64_t> found
    return at


cdef inline const char *_digits(const char *at, uint64_t *number) noexcept nogil:
    """Adds the digits to the number, up to the first character that is none; a NUL ends every buffer."""
    cdef unsigned int digit = <unsigned char> at[0] - 48
    cdef uint64_t found = number[0]
    while digit < 10:
        found = found * 10 + digit
        at += 1
        digit = <unsigned char> at[0] - 48
    number[0] = found
    return at


cdef const char *_number(const char *start, double *value) except? NULL:
    """A JSON number as the nearest double; NULL where it is none. The buffer ends with a NUL."""
    cdef const char *at = start
    cdef const char *digits
    cdef const char *whole
    cdef char *stop = NULL
    cdef uint64_t mantissa = 0, power = 0
    cdef int64_t exponent = 0
    cdef Py_ssize_t count
    cdef bint negative = at[0] == 45, minus
    at += negative
    digits = at
    at = _digits(at, &mantissa)
    whole = at
    count = at - digits
    if not count or (digits[0] == 48 and count > 1):
        return NULL
    if at[0] == 46:
        digits = at + 1
        at = _digits(digits, &mantissa)
        exponent = digits - at
        if not exponent:
            return NULL
        count -= exponent
    if at[0] == 101 or at[0] == 69:
        at += 1
        minus = at[0] == 45
        at += minus or at[0] == 43
        digits = at
        at = _digits(at, &power)
        if at == digits:
            return NULL
        if at - digits > 6:
            count = 100  # as good as infinite; the number is read by who knows all about it
        else:
            exponent += -<int64_t> power if minus else <int64_t> power
    if count <= 19 and mantissa <= _EXACT and -22 <= exponent <= 22:  # one operation, which is rounded correctly
        value[0] = <double> mantissa
        if exponent < 0:
            value[0] /= _TEN[-exponent]
        else:
            value[0] *= _TEN[exponent]
        if negative and (mantissa or at != whole):  # "-0" is a whole number, and has no sign
            value[0] = -value[0]
        return at
    value[0] = PyOS_string_to_double(start, &stop, NULL)  # the text ends at a character that no number has
    if stop != at:
        return NULL
    return at


cdef class Rendered:
    """The outputs of one batch as JSON text: each row of each output is a span of it."""

    cdef list texts, names, types, shapes
    cdef dict heads
    cdef Py_ssize_t *spans
    cdef Py_ssize_t rows, width
    cdef bint good

    def __cinit__(self):
        self.spans = NULL

    def __dealloc__(self):
        PyMem_Free(self.spans)

    cdef int render(self, dict outputs, object type_name) except -1:
        """Whether every output is a row-wise array of finite numbers is said by `good`."""
        cdef bytes text
        cdef Py_ssize_t number = 0, row
        cdef const char *at
        cdef const char *end
        cdef const char *start
        self.good = False
        self.width = len(outputs)
        self.texts, self.names, self.types, self.shapes, self.heads = [], [], [], [], {}
        self.rows = -1
        for name, array in outputs.items():
            dtype = array.dtype
            shape = array.shape
            if dtype.char not in "fdilq" or not array.flags.c_contiguous or not shape or not array.size:
                return 0
            if self.rows < 0:
                self.rows = shape[0]
                self.spans = <Py_ssize_t *> PyMem_Malloc(2 * self.rows * self.width * sizeof(Py_ssize_t))
                if self.spans == NULL:
                    raise MemoryError
            elif self.rows != <Py_ssize_t> shape[0]:
                return 0
            text = _dumps(array if len(shape) == 2 else array.reshape(self.rows, -1), option=_NUMPY)
            start = PyBytes_AS_STRING(text)
            end = start + PyBytes_GET_SIZE(text)
            at = start + 1
            if memchr(start, 110, end - start) != NULL:  # null: what JSON has no word for
                return 0
            for row in range(self.rows):
                at = <const char *> memchr(at, 91, end - at)
                if at == NULL:
                    return 0
                self.spans[2 * (number * self.rows + row)] = at + 1 - start
                at = <const char *> memchr(at, 93, end - at)
                if at == NULL:
                    return 0
                self.spans[2 * (number * self.rows + row) + 1] = at - start
            self.texts.append(text)
            self.names.append(name)
            self.types.append(type_name(dtype))
            self.shapes.append(shape[1:])
            number += 1
        self.good = number > 0
        return 0

    cdef list heads_of(self, Py_ssize_t rows, object tensor_head):
        found = self.heads.get(rows)
        if found is None:
            found = [
                tensor_head(name, kind, (rows, *shape))
                for name, kind, shape in zip(self.names, self.types, self.shapes)
            ]
            self.heads[rows] = found
        return found


cdef class Texts:
    """What does not change from answer to answer: the start of the body, and the fields of the head before the id."""

    cdef bytes body, fields

    def __init__(self, body, fields):
        self.body = body
        self.fields = fields


cdef class JsonLane(Lane):
    """One remembered head and the model that it leads to: takes the usual requests from there to there and back."""

    cdef readonly object head
    cdef object tensor_head, type_name
    cdef str request_id
    cdef bytes start, name_text, type_text
    cdef int64_t[8] shape
    cdef int dims
    cdef char kind
    cdef int itemsize
    cdef Py_ssize_t width, plain_bytes
    cdef double limit, low, high
    cdef bint deadline_given

    def __init__(self, **known):
        super().__init__(**known)
        self.head = known["head"]
        self.tensor_head = known["tensor_head"]
        self.type_name = known["type_name"]
        self.request_id = self.head.request_id
        spec = known["input"]
        self.name_text = spec.name.encode()
        self.type_text = spec.datatype.encode()
        self.dims = len(self.row_shape)
        self.width = 1
        for place, length in enumerate(self.row_shape):
            self.shape[place] = length
            self.width *= length
        self.kind = ord(known["kind"])
        self.itemsize = spec.dtype.itemsize
        self.low, self.high = known["bounds"]
        self.limit = known["limit"]
        self.plain_bytes = self.head.plain_bytes
        self.deadline_given = self.head.deadline_given
        self.start = known["start"]

    cdef bint begin(self, object connection, bytes data, Py_ssize_t end) except -1:
        """Takes the request to the queue; False where it has to go the long way."""
        cdef double now = clock(), left = self.left, sent = connection._sent
        cdef JsonItem item
        if sent > 0.0 and self.deadline_given:  # it is known how long it has waited in the kernel
            left = min(left, <double> self.head.deadline - (now - sent))
        if self.too_late(now, left, sent > 0.0):
            return False
        if not self.leads_there():
            self.head.lane = None
            return False
        if self.refuses(now + left, now, 1):
            return False
        item = JsonItem.__new__(JsonItem)
        if not self._parse(item, PyBytes_AS_STRING(data) + end, PyBytes_GET_SIZE(data) - end):
            return False
        if item.rows > 1 and self.refuses(now + left, now, item.rows):
            return False
        item.prepare(self, now, now + left)
        item.connection = connection
        item.data = data
        item.body_at = end
        connection._pending.append(item)
        connection._used = True
        connection._head_began = connection._sent = 0.0
        self.queue(item)
        return True

    cdef bint _parse(self, JsonItem item, const char *at, Py_ssize_t size) except -1:
        """Reads the body into the item; False where it is anything but the usual."""
        cdef const char *end = at + size
        cdef const char *id_at = NULL
        cdef const char *key
        cdef Py_ssize_t length = 0, id_size = 0
        cdef bint inputs = False
        at = _blank(at, end)
        if at >= end or at[0] != 123:
            return False
        at += 1
        while True:
            at = _blank(at, end)
            if at >= end or at[0] != 34:
                return False
            key = at + 1
            at = _plain_text(key, end, &length)
            if at == NULL:
                return False
            at = _blank(at, end)
            if at >= end or at[0] != 58:
                return False
            at = _blank(at + 1, end)
            if length == 2 and key[0] == 105 and key[1] == 100:
                if id_at != NULL or at >= end or at[0] != 34:
                    return False
                id_at = at + 1
                at = _plain_text(id_at, end, &id_size)
                if at == NULL or not id_size:
                    return False
            elif length == 6 and memcmp(key, b"inputs", 6) == 0:
                if inputs:
                    return False
                inputs = True
                at = self._parse_input(item, at, end)
                if at == NULL:
                    return False
            else:
                return False
            at = _blank(at, end)
            if at >= end:
                return False
            if at[0] == 125:
                break
            if at[0] != 44:
                return False
            at += 1
        if not inputs or _blank(at + 1, end) != end:
            return False
        if id_at != NULL:
            item.id_bytes = PyBytes_FromStringAndSize(id_at, id_size)
        return True

    cdef const char *_parse_input(self, JsonItem item, const char *at, const char *end) except? NULL:
        """The list with the one input, up to behind its end; NULL where it is anything else."""
        cdef const char *key
        cdef const char *text
        cdef const char *values = NULL
        cdef Py_ssize_t length = 0, found = 0
        cdef bint named = False, typed = False
        cdef int64_t rows = -1, number = 0
        cdef int place
        if at >= end or at[0] != 91:
            return NULL
        at = _blank(at + 1, end)
        if at >= end or at[0] != 123:
            return NULL
        at += 1
        while True:
            at = _blank(at, end)
            if at >= end or at[0] != 34:
                return NULL
            key = at + 1
            at = _plain_text(key, end, &length)
            if at == NULL:
                return NULL
            at = _blank(at, end)
            if at >= end or at[0] != 58:
                return NULL
            at = _blank(at + 1, end)
            if at >= end:
                return NULL
            if length == 4 and memcmp(key, b"name", 4) == 0:
                if named or at[0] != 34:
                    return NULL
                text = at + 1
                at = _plain_text(text, end, &found)
                if at == NULL or found != PyBytes_GET_SIZE(self.name_text):
                    return NULL
                if memcmp(text, PyBytes_AS_STRING(self.name_text), found) != 0:
                    return NULL
                named = True
            elif length == 8 and memcmp(key, b"datatype", 8) == 0:
                if typed or at[0] != 34:
                    return NULL
                text = at + 1
                at = _plain_text(text, end, &found)
                if at == NULL or found != PyBytes_GET_SIZE(self.type_text):
                    return NULL
                if memcmp(text, PyBytes_AS_STRING(self.type_text), found) != 0:
                    return NULL
                typed = True
            elif length == 5 and memcmp(key, b"shape", 5) == 0:
                if rows >= 0 or at[0] != 91:
                    return NULL
                at += 1
                for place in range(self.dims + 1):
                    at = _natural(_blank(at, end), end, &number)
                    if at == NULL:
                        return NULL
                    at = _blank(at, end)
                    if at >= end or at[0] != (93 if place == self.dims else 44):
                        return NULL
                    at += 1
                    if not place:
                        rows = number
                    elif number != self.shape[place - 1]:
                        return NULL
                if not 1 <= rows <= self.max_rows:
                    return NULL
            elif length == 4 and memcmp(key, b"data", 4) == 0:
                if values != NULL or at[0] != 91 or rows < 0:
                    return NULL  # the shape says how much room the data needs
                values = at
                if end - at < 2 * rows * self.width:
                    return NULL  # too short for so many numbers: no room is made for what does not come
                item.packed = PyBytes_FromStringAndSize(NULL, rows * self.width * self.itemsize)
                at = self._parse_data(at + 1, end, rows * self.width, PyBytes_AS_STRING(item.packed))
                if at == NULL:
                    return NULL
            else:
                return NULL
            at = _blank(at, end)
            if at >= end:
                return NULL
            if at[0] == 125:
                break
            if at[0] != 44:
                return NULL
            at += 1
        if not named or not typed or values == NULL:
            return NULL
        at = _blank(at + 1, end)
        if at >= end or at[0] != 93:
            return NULL
        item.rows = rows
        return at + 1

    cdef const char *_parse_data(self, const char *at, const char *end, Py_ssize_t count, char *into) except? NULL:
        """So many numbers and the bracket behind them; NULL where it is anything else."""
        cdef Py_ssize_t number
        cdef double value = 0.0
        cdef int64_t whole = 0
        cdef char kind = self.kind
        for number in range(count):
            at = _blank(at, end)
            if kind == 102 or kind == 100:  # f, d
                at = _number(at, &value)
                if at == NULL or not -self.limit < value < self.limit:
                    return NULL
                if kind == 102:
                    (<float *> into)[number] = <float> value
                else:
                    (<double *> into)[number] = value
            else:
                at = _whole(at, end, &whole)
                if at == NULL or whole < self.low or whole > self.high:
                    return NULL
                if kind == 113:  # q
                    (<int64_t *> into)[number] = whole
                elif kind == 105:  # i
                    (<int32_t *> into)[number] = <int32_t> whole
                else:
                    return NULL
            at = _blank(at, end)
            if at >= end or at[0] != (93 if number + 1 == count else 44):
                return NULL
            at += 1
        return at

    cdef bint send(self, JsonItem item, object whole, Py_ssize_t first, double now) except -1:
        """Sends the answer; False where it has to be made the long way."""
        cdef Rendered rendered
        cdef Texts texts
        cdef bytes answer, text, tail
        cdef Py_ssize_t number, row, last = first + item.rows, size, body, span, length
        cdef Py_ssize_t id_length = 0
        cdef const char *id_text
        cdef char *at
        cdef char[24] digits
        cdef int count = 0
        connection, state = item.connection, self.state
        if state.draining or connection._pending[0] is not item or not self.sealed():
            return False
        found = whole.rendered
        if found is None:
            rendered = Rendered.__new__(Rendered)
            rendered.render(whole.outputs, self.type_name)
            whole.rendered = rendered
        else:
            rendered = <Rendered> found
        if not rendered.good or last > rendered.rows:
            return False
        twin = whole.twin
        known = PyDict_GetItem(self.texts, twin)
        if known == NULL:
            if len(self.texts) > 64:
                return False
            texts = self.texts[twin] = Texts(*self.text_maker(self, twin))
        else:
            texts = <Texts> <object> known
        heads = rendered.heads_of(item.rows, self.tensor_head)
        prediction_id = self.id_start + self.token()
        id_text = PyUnicode_AsUTF8AndSize(prediction_id, &id_length)
        # How long the body will be, then the head, then both into one piece of memory.
        body = PyBytes_GET_SIZE(texts.body) + id_length + 3 + 11 + 2
        if item.id_bytes is not None:
            body += PyBytes_GET_SIZE(item.id_bytes) + 8
        for number in range(rendered.width):
            body += PyBytes_GET_SIZE(<bytes> heads[number]) + 2 + item.rows - 1 + 2
            for row in range(first, last):
                span = 2 * (number * rendered.rows + row)
                body += rendered.spans[span + 1] - rendered.spans[span]
        body -= 1  # the last output has no comma
        if body > self.plain_bytes:
            return False
        length = body
        while True:
            digits[count] = <char> (48 + length % 10)
            count += 1
            length //= 10
            if not length:
                break
        tail = state.tail
        size = PyBytes_GET_SIZE(self.start) + count + PyBytes_GET_SIZE(texts.fields) + id_length + PyBytes_GET_SIZE(tail) + body
        answer = PyBytes_FromStringAndSize(NULL, size)
        at = PyBytes_AS_STRING(answer)
        at = _put(at, PyBytes_AS_STRING(self.start), PyBytes_GET_SIZE(self.start))
        while count:
            count -= 1
            at[0] = digits[count]
            at += 1
        at = _put(at, PyBytes_AS_STRING(texts.fields), PyBytes_GET_SIZE(texts.fields))
        at = _put(at, id_text, id_length)
        at = _put(at, PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
        at = _put(at, PyBytes_AS_STRING(texts.body), PyBytes_GET_SIZE(texts.body))
        at = _put(at, id_text, id_length)
        at = _put(at, b'"},', 3)
        if item.id_bytes is not None:
            at = _put(at, b'"id":"', 6)
            at = _put(at, PyBytes_AS_STRING(item.id_bytes), PyBytes_GET_SIZE(item.id_bytes))
            at = _put(at, b'",', 2)
        at = _put(at, b'"outputs":[', 11)
        for number in range(rendered.width):
            if number:
                at[0] = 44
                at += 1
            text = heads[number]
            at = _put(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            at[0] = 91
            at += 1
            text = rendered.texts[number]
            for row in range(first, last):
                if row > first:
                    at[0] = 44
                    at += 1
                span = 2 * (number * rendered.rows + row)
                at = _put(at, PyBytes_AS_STRING(text) + rendered.spans[span], rendered.spans[span + 1] - rendered.spans[span])
            at = _put(at, b"]}", 2)
        at = _put(at, b"]}", 2)
        if at != PyBytes_AS_STRING(answer) + size:
            raise SystemError("an answer is not as long as it was measured")
        self.seal.answered.count += 1
        pending = connection._pending
        pending.popleft()
        item.written = True
        connection._transport.write(answer)
        connection._written += size
        connection._used = True
        if pending:
            connection.settled()
        elif connection._paused or connection._continue_owed:
            connection._invite()
            connection._resume()
        self.tell(
            item, whole, now, PyBytes_GET_SIZE(item.data) - item.body_at, size, self.request_id, connection.peer, prediction_id
        )
        return True


cdef inline char *_put(char *at, const char *text, Py_ssize_t size) noexcept nogil:
    memcpy(at, text, size)
    return at + size


cdef class JsonItem(LaneItem):
    """One request of a lane: for its connection it stands where an `Exchange` would."""

    cdef bytes data
    cdef Py_ssize_t body_at
    cdef public object connection, parts
    cdef public Py_ssize_t size
    cdef public bint close

    @property
    def id(self):
        return self.id_bytes.decode() if self.id_bytes is not None else (<JsonLane> self.lane).request_id

    @property
    def head(self):
        return (<JsonLane> self.lane).head

    @property
    def body(self):
        return self.data[self.body_at:]

    cdef bint finish(self, object whole, Py_ssize_t first, double now) except -1:
        return (<JsonLane> self.lane).send(self, whole, first, now)

    def abandon(self):
        """The connection is gone."""
        self.cancel()


def take(connection, data):
    """Whether the bytes were one whole request that goes the short way; then it is on its way."""
    cdef const char *start
    cdef const char *at
    cdef const char *end
    cdef Py_ssize_t length
    cdef PyObject *found
    if type(data) is not bytes or connection._pending or connection._ended or connection._paused or connection._upload is not None:
        return False
    if connection._choked or connection._parked:
        return False
    start = PyBytes_AS_STRING(data)
    end = start + PyBytes_GET_SIZE(data)
    at = start
    while True:
        at = <const char *> memchr(at, 13, end - at)
        if at == NULL or end - at < 4:
            return False
        if at[1] == 10 and at[2] == 13 and at[3] == 10:
            break
        at += 1
    length = at + 4 - start
    state = connection._state
    found = PyDict_GetItem(state.heads._young, data[:length])
    if found == NULL:
        return False
    head = <object> found
    lane = head.lane
    if lane is None or (lane is False and clock() >= <double> head.lane_until):
        try:
            lane = state.lanes(state, head)
        except Exception:
            _log.exception("a head could not be given a lane")
            lane = False
        head.lane = lane
    if lane is False or <Py_ssize_t> head.length != end - start - length or state.draining:
        return False
    try:
        return (<JsonLane> lane).begin(connection, data, length)
    except Exception:
        _log.exception("a request could not be taken the short way")
        return bool(connection._pending)  # else it was not taken at all
