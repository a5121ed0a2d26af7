//! Images.

use model::{Bytes, NodeId, Timestamp};

use crate::proto::model as proto;
use crate::{Field, Invalid};

impl From<&model::Image> for proto::Image {
    fn from(image: &model::Image) -> Self {
        let model::Image { digest, size, imported, copies, origin, idle } = image;
        let copy = |since: &Option<Timestamp>| proto::ImageCopy { since: since.map(|since| since.0) };
        Self {
            digest: digest.to_string(),
            size: size.0,
            imported: imported.0,
            copies: copies.iter().map(|(node, since)| (node.0, copy(since))).collect(),
            origin: origin.as_ref().map(ToString::to_string),
            idle: idle.map(|since| since.0),
        }
    }
}

impl TryFrom<proto::Image> for model::Image {
    type Error = Invalid;

    fn try_from(image: proto::Image) -> Result<Self, Invalid> {
        let proto::Image { digest, size, imported, copies, origin, idle } = image;
        let copy = |(node, proto::ImageCopy { since })| (NodeId(node), since.map(Timestamp));
        Ok(Self {
            digest: Field("Image", "digest").parsed(&digest)?,
            size: Bytes(size),
            imported: Timestamp(imported),
            copies: copies.into_iter().map(copy).collect(),
            origin: origin.map(|origin| Field("Image", "origin").parsed(&origin)).transpose()?,
            idle: idle.map(Timestamp),
        })
    }
}
