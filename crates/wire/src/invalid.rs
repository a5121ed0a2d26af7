//! What can be wrong with a message, and the checks of single fields.

use std::net::Ipv4Addr;
use std::str::FromStr;

use model::{
    InvalidConstraint, InvalidDevice, InvalidDigest, InvalidImageName, InvalidName, InvalidOrigin,
    InvalidPlatform, InvalidQuantity, InvalidRegistryName, InvalidSchedule, UnknownCapability,
};

/// A message that cannot be what it should stand for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {message}: {field}")]
pub struct Invalid {
    /// By the name that `proto/` has for it.
    pub message: &'static str,
    pub field: &'static str,
    #[source]
    pub cause: Cause,
}

impl Invalid {
    pub fn new(message: &'static str, field: &'static str, cause: impl Into<Cause>) -> Self {
        Self { message, field, cause: cause.into() }
    }
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("it is missing")]
    Missing,
    #[error("this version of gantry does not know what kind it is, or it has none")]
    UnknownKind,
    #[error("this version of gantry does not know the value {0}")]
    UnknownValue(i32),
    #[error("its format is {found}; this version of gantry reads 1 to {known}")]
    Format { found: u32, known: u32 },
    /// Wide enough for any number that protobuf has.
    #[error("{0} is out of range")]
    OutOfRange(i128),
    #[error("it has {0} bytes, not 32")]
    Length(usize),
    #[error("`{0}` is not a number of 32 hex digits")]
    Hex(String),
    #[error("`{0}` is not an address")]
    Address(String),
    #[error("`{0}` is not an absolute path")]
    Path(String),
    #[error("`{0}` is not a limit that the kernel has")]
    Ulimit(String),
    #[error("{base}/{prefix} is not a subnet: its base is its lowest address, and its prefix 1 to 30")]
    Subnet { base: Ipv4Addr, prefix: u32 },
    #[error("a snapshot has one head, its first record")]
    Head,
    /// What a conversion outside this crate finds wrong.
    #[error("{0}")]
    Other(&'static str),
    #[error(transparent)]
    Bytes(#[from] prost::DecodeError),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    ImageName(#[from] InvalidImageName),
    #[error(transparent)]
    Schedule(#[from] InvalidSchedule),
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error(transparent)]
    Constraint(#[from] InvalidConstraint),
    #[error(transparent)]
    Platform(#[from] InvalidPlatform),
    #[error(transparent)]
    Quantity(#[from] InvalidQuantity),
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    #[error(transparent)]
    Device(#[from] InvalidDevice),
    #[error(transparent)]
    Registry(#[from] InvalidRegistryName),
    #[error(transparent)]
    Origin(#[from] InvalidOrigin),
}

impl From<&'static str> for Cause {
    fn from(words: &'static str) -> Self {
        Self::Other(words)
    }
}

/// One field of one message, both by the names that `proto/` has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub &'static str, pub &'static str);

impl Field {
    pub fn bad(self, cause: impl Into<Cause>) -> Invalid {
        Invalid::new(self.0, self.1, cause)
    }

    /// A message that has to be there.
    pub fn present<P>(self, value: Option<P>) -> Result<P, Invalid> {
        value.ok_or_else(|| self.bad(Cause::Missing))
    }

    /// A message that has to be there, converted.
    pub fn required<P, M>(self, value: Option<P>) -> Result<M, Invalid>
    where
        M: TryFrom<P, Error = Invalid>,
    {
        self.present(value).and_then(M::try_from)
    }

    /// Which of a `oneof` it is.
    pub fn kind<P>(self, value: Option<P>) -> Result<P, Invalid> {
        value.ok_or_else(|| self.bad(Cause::UnknownKind))
    }

    /// An enum's value. Zero is what a field has that was not set.
    pub fn choice<P, M>(self, value: i32) -> Result<M, Invalid>
    where
        P: TryFrom<i32>,
        M: TryFrom<P, Error = Invalid>,
    {
        if value == 0 {
            return Err(self.bad(Cause::Missing));
        }
        P::try_from(value).map_err(|_| self.bad(Cause::UnknownValue(value))).and_then(M::try_from)
    }

    /// A number that has fewer bits than protobuf has for it.
    pub fn narrowed<T: TryFrom<u32>>(self, value: u32) -> Result<T, Invalid> {
        T::try_from(value).map_err(|_| self.bad(Cause::OutOfRange(value.into())))
    }

    /// Text that one of the nouns reads.
    pub fn parsed<T>(self, text: &str) -> Result<T, Invalid>
    where
        T: FromStr,
        Cause: From<T::Err>,
    {
        T::from_str(text).map_err(|error| self.bad(Cause::from(error)))
    }

    /// An address, with its port or without.
    pub fn address<T: FromStr>(self, text: &str) -> Result<T, Invalid> {
        T::from_str(text).map_err(|_| self.bad(Cause::Address(shown(text))))
    }

    /// A path from the root, which a call of the kernel can be given.
    pub fn absolute(self, path: String) -> Result<String, Invalid> {
        if path.starts_with('/') && !path.contains('\0') {
            return Ok(path);
        }
        Err(self.bad(Cause::Path(shown(&path))))
    }

    /// A number of 128 bits, in the one form that is written.
    pub fn hex(self, text: &str) -> Result<u128, Invalid> {
        let digits = text.len() == 32 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        number.ok_or_else(|| self.bad(Cause::Hex(shown(text))))
    }

    /// A hash of 32 bytes.
    pub fn hash(self, bytes: Vec<u8>) -> Result<[u8; 32], Invalid> {
        <[u8; 32]>::try_from(bytes).map_err(|bytes| self.bad(Cause::Length(bytes.len())))
    }
}

/// The start of text from outside, safe for a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

/// Every one of a list, converted.
pub(crate) fn list<P, M>(values: Vec<P>) -> Result<Vec<M>, Invalid>
where
    M: TryFrom<P, Error = Invalid>,
{
    values.into_iter().map(M::try_from).collect()
}

/// A message that may be absent, converted.
pub(crate) fn optional<P, M>(value: Option<P>) -> Result<Option<M>, Invalid>
where
    M: TryFrom<P, Error = Invalid>,
{
    value.map(M::try_from).transpose()
}

/// Both conversions of enums that carry nothing. Variants are called the same in `model` and in `proto/`; one that is new
/// in either does not compile until it is listed.
macro_rules! choices {
    ($($name:ident { $($variant:ident),+ $(,)? })+) => {$(
        impl From<model::$name> for proto::$name {
            fn from(value: model::$name) -> Self {
                match value {
                    $(model::$name::$variant => Self::$variant,)+
                }
            }
        }

        impl TryFrom<proto::$name> for model::$name {
            type Error = $crate::Invalid;

            fn try_from(value: proto::$name) -> Result<Self, $crate::Invalid> {
                match value {
                    proto::$name::Unspecified => {
                        Err($crate::Field(stringify!($name), "value").bad($crate::Cause::Missing))
                    }
                    $(proto::$name::$variant => Ok(Self::$variant),)+
                }
            }
        }
    )+};
}
pub(crate) use choices;
