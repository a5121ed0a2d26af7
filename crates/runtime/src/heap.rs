//! How the C library's allocator is used.

#![expect(unsafe_code, reason = "mallopt and malloc_trim have no safe form")]

/// One for each of the processors that a small machine has.
const ARENAS: libc::c_int = 2;

/// Keeps the heap of a process with many threads together; to be called before there is a second one.
///
/// glibc gives a thread that finds the arenas busy one of its own, up to eight for each processor, and what is freed in one is of
/// no use to the others: a daemon that has had some dozen blocking threads keeps megabytes in them that nobody uses.
pub fn keep_together() {
    // SAFETY: two numbers go to the allocator, which has a lock of its own. Where it does not know the first, nothing changes.
    let _is_known = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Gives back what the allocator holds and nobody uses. It takes its locks one after the other, and some milliseconds.
pub fn give_back() {
    // SAFETY: it concerns memory that nobody has.
    unsafe { libc::malloc_trim(0) };
}
