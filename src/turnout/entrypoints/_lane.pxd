# cython: language_level=3
"""What the compiled modules of the doors build on: see `_lane.pyx`."""

from libc.stdint cimport int64_t

cdef double clock() noexcept nogil

cdef class Lane:
    cdef readonly object model, endpoint, batching, state, seal
    cdef readonly str version
    cdef object find, waiting, policy, cost, seals, seal_key, token, admit, deadlines, pace, observe
    cdef object failing, answering, text_maker
    cdef str asked, name, protocol, id_start, variant, input_name
    cdef object datatype, dtype, row_shape
    cdef Py_ssize_t row_bytes, max_rows, queue_rows, queue_bytes
    cdef double left
    cdef dict texts
    cdef object share
    cdef bint counted
    cdef int64_t[::1] numbers
    cdef double[::1] sums
    cdef double[::1] time_bounds
    cdef Py_ssize_t bounds_count

    cdef bint too_late(self, double now, double left, bint known) except -1
    cdef bint leads_there(self) except -1
    cdef bint sealed(self) except -1
    cdef bint refuses(self, double deadline, double now, Py_ssize_t rows) except -1
    cdef int queue(self, LaneItem item) except -1
    cdef int tell(
        self, LaneItem item, object whole, double now, Py_ssize_t taken, Py_ssize_t sent, str request_id, str peer,
        str prediction_id
    ) except -1
    cdef void _time(self, int place, double seconds) noexcept

cdef class LaneItem:
    cdef Lane lane
    cdef bytes packed, id_bytes
    cdef public object key, avoid, watched
    cdef public Py_ssize_t rows, nbytes
    cdef public int attempts
    cdef public bint waiting
    cdef public double deadline, enqueued, started
    cdef bint over, gone, written

    cdef int prepare(self, Lane lane, double now, double deadline) except -1
    cdef bint finish(self, object whole, Py_ssize_t first, double now) except -1
    cdef int _conclude(self) except -1
