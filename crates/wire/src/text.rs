//! Values that messages carry as text, for those who compose and read messages themselves.

use std::net::{Ipv4Addr, SocketAddr};

use model::{Digest, RequestId, Subnet};

use crate::{Cause, Field, Invalid};

/// Reads `sha256:` and 64 hex digits.
pub fn digest(text: &str) -> Result<Digest, Invalid> {
    Field("digest", "text").parsed(text)
}

/// Reads `ip:port`.
pub fn socket_address(text: &str) -> Result<SocketAddr, Invalid> {
    Field("address", "text").address(text)
}

/// A request's id as messages carry it: 32 hex digits.
pub fn request_text(id: RequestId) -> String {
    format!("{:032x}", id.0)
}

/// Reads what [`request_text`] writes, in no other form.
pub fn request_id(text: &str) -> Result<RequestId, Invalid> {
    Field("request", "id").hex(text).map(RequestId)
}

/// A subnet whose addresses can be counted: `model::Subnet` computes with both numbers without looking back.
pub fn subnet(base: &str, prefix: u32) -> Result<Subnet, Invalid> {
    let base: Ipv4Addr = Field("Subnet", "base").address(base)?;
    let at = Field("Subnet", "prefix");
    let bad = || at.bad(Cause::Subnet { base, prefix });
    if !(1..=30).contains(&prefix) {
        return Err(bad());
    }
    // The last subnet of all reaches past the largest address by one, which is more than `model::Subnet` can count to.
    let size = 1u32 << (32 - prefix);
    let first = u32::from(base);
    if !first.is_multiple_of(size) || first.checked_add(size).is_none() {
        return Err(bad());
    }
    Ok(Subnet { base, prefix: at.narrowed(prefix)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_reads_back_as_written_and_in_no_other_form() {
        let id = RequestId(0x0123_4567);
        assert_eq!(request_text(id), "00000000000000000000000001234567");
        assert_eq!(request_id(&request_text(id)), Ok(id));
        for bad in ["", "1234567", "+0000000000000000000000001234567", "0000000000000000000000000ABCDEF0"] {
            assert!(request_id(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_subnet_begins_at_its_lowest_address() {
        assert_eq!(subnet("10.1.2.0", 24), Ok(Subnet { base: Ipv4Addr::new(10, 1, 2, 0), prefix: 24 }));
        for (base, prefix) in [
            ("10.1.2.1", 24),
            ("10.1.2.0", 0),
            ("10.1.2.0", 31),
            ("10.1.2.0", 1 << 20),
            ("255.255.255.0", 24),
            ("", 24),
        ] {
            assert!(subnet(base, prefix).is_err(), "{base}/{prefix} was accepted");
        }
    }
}
