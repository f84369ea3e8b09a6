# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, annotation_typing=False
"""The short way from a door to the batches and back, compiled: what is the same for HTTP and gRPC.

`lanes.py` says for which models, the doors' own modules (`http/_lane.pyx`, `grpc/_lane.pyx`) for which requests.
"""

from libc.math cimport INFINITY, fabs
from libc.stdint cimport int64_t

import logging

import numpy as np

from turnout.core.errors import Cancelled, Code, Failure
from turnout.monitoring.record import RequestRecord

cdef extern from * nogil:
    """
    #include <time.h>
    #ifdef __APPLE__
    #define TURNOUT_MONOTONIC CLOCK_UPTIME_RAW
    #else
    #define TURNOUT_MONOTONIC CLOCK_MONOTONIC
    #endif
    """
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int TURNOUT_MONOTONIC

cdef object _new = tuple.__new__
cdef object _OK = Code.OK
cdef object _log = logging.getLogger("turnout")

# What the sources of the pure way call by the same names.
cdef double _IDLE = 0.002
cdef double _NEGLIGIBLE = 0.002
cdef double _SHARE = 0.08
cdef double _PASSES = 3.0
cdef double _CAUTION = 1.35


cdef double clock() noexcept nogil:
    cdef timespec now
    clock_gettime(TURNOUT_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


def now():
    """What has to be the time of `time.monotonic`: deadlines of both ways meet in one queue."""
    return clock()


cdef class Lane:
    """The way to one model for requests that look alike. `state` is what the connections of a door share."""

    def __init__(self, **known):
        self.model = known["model"]
        self.endpoint = known["endpoint"]
        self.batching = batching = known["batching"]
        self.state = state = known["state"]
        self.find = state.serving.find
        self.waiting = batching.waiting
        self.policy = batching.policy
        self.cost = batching.cost
        self.seals = self.endpoint._seals
        self.seal_key, self.seal = known["seal_key"], known["seal"]
        self.token = self.endpoint._token
        self.admit = batching.admit
        self.deadlines = state.deadlines
        self.pace = state.pace
        self.observe = state.observer.request
        self.failing = known["failing"]
        self.answering = known["answering"]
        self.text_maker = known["texts"]
        self.asked = known["asked"]
        self.name = self.endpoint.name
        self.version = batching.version
        self.protocol = known["protocol"]
        self.id_start = self.seal.id_start
        self.variant = self.seal.variant
        spec = known["input"]
        self.input_name = spec.name
        self.datatype = spec.datatype
        self.dtype = spec.dtype
        self.row_shape = spec.shape[1:]
        self.row_bytes = batching._row_bytes
        self.max_rows = batching.max_rows
        self.queue_rows = self.policy.queue_rows
        self.queue_bytes = self.policy.queue_bytes
        self.left = min(known["deadline"], self.endpoint.deadline)
        self.texts = {}
        usual = known["usual"]
        self.counted = usual is not None
        if usual is not None:
            self.numbers, self.sums, self.time_bounds = usual.tally.numbers, usual.tally.seconds, known["time_bounds"]
            self.bounds_count = len(known["time_bounds"])
            self.share = usual.share
            self.observe = usual.record

    cdef bint too_late(self, double now, double left, bint known) except -1:
        """What `Pace.too_late` says of a request that is read now, written out.

        `known`: how long it has waited so far is known, and taken off already.
        """
        cdef double behind
        pace = self.pace
        if now - <double> pace._active > _IDLE:
            pace._began = now
        pace._active = now
        if pace._within:
            behind = now - <double> pace._began + <double> pace._behind
        else:
            behind = pace.behind(now)
        if known:
            return left <= 0.0 or left < _PASSES * behind
        return left <= 0.0 or (behind > _NEGLIGIBLE and behind > _SHARE * left)

    cdef bint leads_there(self) except -1:
        """Whether the name still stands for this model, and what is said of its answers still holds."""
        try:
            model = self.find(self.asked)
        except Failure:
            return False
        return model is self.model and model.servable is self.endpoint and self.sealed()

    cdef bint sealed(self) except -1:
        """Whether what the endpoint says of its answers is what the lane has written down."""
        return self.seals.get(self.seal_key) is self.seal

    cdef bint refuses(self, double deadline, double now, Py_ssize_t rows) except -1:
        """Whether the queue may refuse the request; the long way asks it again and says why."""
        cdef Py_ssize_t waiting = self.waiting.rows
        cdef double wait
        batching = self.batching
        if not batching.places:
            return True
        if not waiting:
            return False
        if waiting < self.queue_rows and <Py_ssize_t> self.waiting.nbytes < self.queue_bytes:
            wait = fabs(<double> batching._next_free - now) + waiting * <double> batching._row_seconds
            cost = self.cost
            if wait <= (deadline - now) / _CAUTION - (<double> cost.fixed + <double> cost.per_row * rows):
                return False
        return batching.refuse_now(deadline, rows) is not None

    cdef int queue(self, LaneItem item) except -1:
        """What `Batching.admit` and `Deadlines.add` do, written out: every request is here."""
        item.enqueued = clock()
        item.waiting = True
        waiting, deadlines = self.waiting, self.deadlines
        found = waiting._queues.get(())
        if found is None:
            self.admit(item)
        else:
            found.append(item)
            waiting.rows += item.rows
            waiting.nbytes += item.nbytes
            if not self.batching._scheduled:
                self.batching._schedule()
        if item.deadline == INFINITY:
            return 0
        if item.deadline < <double> deadlines._soonest or not deadlines._armed:
            deadlines.add(item, item.deadline)
        else:
            item.watched = deadlines._calls
            item.watched[item] = item.deadline
        return 0

    cdef void _time(self, int place, double seconds) noexcept:
        """Counts what one stage took: below the first bound that is not less."""
        cdef Py_ssize_t low = 0, high = self.bounds_count, middle
        while low < high:
            middle = (low + high) // 2
            if self.time_bounds[middle] < seconds:
                low = middle + 1
            else:
                high = middle
        self.numbers[4 + place * (self.bounds_count + 1) + low] += 1
        self.sums[place] += seconds

    cdef int tell(
        self, LaneItem item, object whole, double now, Py_ssize_t taken, Py_ssize_t sent, str request_id, str peer,
        str prediction_id
    ) except -1:
        """Counts an answer whose encoding began at `now`, and tells whoever wants its record."""
        cdef double end = clock()
        pace = self.pace
        if end - <double> pace._active > _IDLE:
            pace._began = end
        pace._active = end
        if self.counted:
            self.numbers[0] += 1
            self.numbers[1] += item.rows
            self.numbers[2] += taken
            self.numbers[3] += sent
            self._time(0, item.enqueued - item.started)
            self._time(1, <double> whole.started - item.enqueued)
            self._time(2, whole.seconds)
            self._time(3, end - now)
            self._time(4, end - item.started)
            share = self.share
            if share is None:
                return 0
            if share.taken >= share.allowed:
                share.seen += 1
                return 0
        self.observe(
            _new(
                RequestRecord,
                (
                    self.name, self.version, self.protocol, _OK, item.rows, item.enqueued - item.started,
                    <double> whole.started - item.enqueued, whole.seconds, end - now, end - item.started, whole.rows,
                    request_id, peer, taken, sent, self.variant, "", prediction_id,
                ),
            )
        )
        return 0


cdef class LaneItem:
    """One request of a lane, from the queue to its answer: what `Item` is to the batches, and the call to its door."""

    cdef int prepare(self, Lane lane, double now, double deadline) except -1:
        """Fills what the queue wants to know, once `rows` is there."""
        self.lane = lane
        self.key = ()
        self.avoid = ()
        self.nbytes = lane.row_bytes * self.rows
        self.deadline = deadline
        self.started = now
        return 0

    cdef bint finish(self, object whole, Py_ssize_t first, double now) except -1:
        """Sends the answer; False where it has to be made the long way."""
        return False

    @property
    def named(self):
        """Whether the caller gave it an id."""
        return self.id_bytes is not None

    @property
    def inputs(self):
        """The tensors, as views of what was read."""
        if self.packed is None:
            return {}
        lane = self.lane
        return {lane.input_name: np.frombuffer(self.packed, lane.dtype).reshape((self.rows, *lane.row_shape))}

    @inputs.setter
    def inputs(self, _given):
        self.packed = None

    def form(self, _name):
        """The type and shape of the rows."""
        return self.lane.datatype, (self.rows, *self.lane.row_shape)

    def part(self, _name):
        """The bytes of the rows."""
        return self.packed

    def done(self):
        return self.over

    def cancelled(self):
        return self.gone

    cdef int _conclude(self) except -1:
        self.over = True
        watched = self.watched
        if watched is not None:
            watched.pop(self, None)
            self.watched = None
        return 0

    def answer(self, whole, first):
        """Takes its rows of a batch's outputs, the first of them at `first`."""
        cdef double now
        if self.over:
            return
        now = clock()
        self._conclude()
        try:
            if self.finish(whole, first, now):
                return
        except Exception:
            _log.exception("an answer could not be made the short way")
            if self.written:
                return
        self.lane.answering(self.lane, self, whole, first, now)

    def set_exception(self, problem):
        """Answers with the failure."""
        if self.over:
            return
        self._conclude()
        self.lane.failing(self.lane, self, problem)

    def cancel(self, failure=None):
        """Ends it early: nobody waits for it, or it is too late."""
        if self.over:
            return
        self._conclude()
        self.gone = True
        self.lane.batching.waiting.forget(self)
        self.lane.failing(self.lane, self, failure if failure is not None else Cancelled("the caller went away"))
