//! Extended headers in pax's format (POSIX.1-2008, `pax`, "Extended Header"): records of `LENGTH KEY=VALUE\n`.

use super::Modified;

/// What the records say of the next entry. A record with an empty value takes the word back, as POSIX has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Modified>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
}

/// GNU tar's description of a sparse file; its map's place depends on the version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) version: (Option<u64>, Option<u64>),
    pub(super) path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

/// `None` where the records are malformed.
pub(super) fn parse(mut text: &[u8]) -> Option<Records> {
    let mut records = Records::default();
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&text[..space])?).ok()?;
        let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.take(&record[..equals], &record[equals + 1..])?;
        text = &text[length..];
    }
    Some(records)
}

impl Records {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, decimal)?,
            b"gid" => self.gid = optional(value, decimal)?,
            b"mtime" => self.modified = optional(value, time)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(key, value)?;
                }
            }
        }
        Some(())
    }
}

impl Sparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.version.0 = Some(decimal(value)?),
            b"minor" => self.version.1 = Some(decimal(value)?),
            b"name" => self.path = Some(value.to_vec()),
            b"realsize" => self.size = Some(decimal(value)?),
            _ => {}
        }
        Some(())
    }
}

/// Empty is `Some(None)`, malformed is `None`.
fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with a fraction, which may be negative and as precise as it likes.
fn time(value: &[u8]) -> Option<Modified> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Modified { seconds, nanoseconds },
        (true, 0) => Modified { seconds: -seconds, nanoseconds: 0 },
        // The fraction counts forward from the second before.
        (true, _) => Modified { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says_whatever_its_value_holds() {
        // The value of the attribute poses as a record; a parser that splits at newlines falls for it.
        let records = parse(b"38 SCHILY.xattr.user.a=x\n13 path=../x\n12 size=513\n").unwrap();
        assert_eq!(records.path, None);
        assert_eq!(records.size, Some(513));
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"x\n13 path=../x".to_vec())]);
    }

    #[test]
    fn an_empty_value_takes_the_word_back() {
        let records = parse(b"9 uid=12\n7 uid=\n8 gid=7\n").unwrap();
        assert_eq!((records.uid, records.gid), (None, Some(7)));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"9 uid=1x\n"[..],
            b"99 uid=1\n",
            b"9 uid=12",
            b"x",
            b"7 uid1\n",
            b"0 \n",
            b"11 size=-12\n",
            b"2 ab",
        ] {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_have_fractions_and_may_lie_before_the_epoch() {
        let at = |seconds, nanoseconds| Some(Modified { seconds, nanoseconds });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"1.0000000019"), at(1, 1));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-3"), at(-3, 0));
        assert_eq!(time(b"1.2x"), None);
    }
}
