//! The attributes of a mount, set through its descriptor.
#![expect(unsafe_code, reason = "mount_setattr(2) has no wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Changes no attribute.
pub(crate) const NONE: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

/// Sets them on the mount that `tree` is the root of, and on those below it if `recursive`.
pub(crate) fn set(tree: impl AsFd, recursive: bool, attributes: libc::mount_attr) -> io::Result<()> {
    let empty: &CStr = c"";
    let flags = if recursive { libc::AT_EMPTY_PATH | libc::AT_RECURSIVE } else { libc::AT_EMPTY_PATH };
    // SAFETY: the descriptor and the two pointers live through the call, which only reads `size_of(attributes)` bytes and
    // a string that ends with NUL.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
