//! Sending signals by their numbers, the real-time ones too: an image may want to be stopped by one, as systemd is by
//! SIGRTMIN+3, and neither nix nor rustix has a name for them.
#![expect(unsafe_code, reason = "kill(2) has no safe form that takes every signal")]

use nix::errno::Errno;
use nix::unistd::Pid;

/// Sends `signal` to one process, of which the caller knows that it has this id. An error says why not.
pub(crate) fn send(process: Pid, signal: i32) -> Result<(), String> {
    let known = u8::try_from(signal).ok().and_then(model::Signal::from_number);
    let known = known.ok_or_else(|| format!("{signal} is not a signal"))?;
    // SAFETY: two numbers go to the kernel, which touches no memory of ours.
    let sent = Errno::result(unsafe { libc::kill(process.as_raw(), libc::c_int::from(known.number())) });
    sent.map(|_zero| ()).map_err(|errno| errno.desc().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    #[test]
    fn a_real_time_signal_arrives_and_what_is_none_is_refused() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Pid::from_raw(child.id().cast_signed());
        for none in [0, -9, 65, i32::MAX] {
            assert_eq!(send(process, none), Err(format!("{none} is not a signal")));
        }
        // SIGRTMIN+3.
        send(process, 37).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(37));
    }
}
