//! Images: named by users, copied by controllers, held by agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Bytes, Digest, Image, ImageName, NodeId};

use crate::apply::{Change, Step};
use crate::command::{Done, Outcome, Rejected};

impl Step<'_> {
    pub(super) fn put_image(
        &mut self,
        name: &ImageName,
        digest: Digest,
        size: Bytes,
        holder: NodeId,
    ) -> Outcome {
        if self.state.node(holder).is_none() {
            return Err(Rejected::NoNode(holder));
        }
        let now = self.state.time;
        let mut image = self.state.image(digest).cloned().unwrap_or_else(|| Image {
            digest,
            size,
            imported: now,
            copies: BTreeMap::new(),
        });
        image.copies.insert(holder, Some(now));
        self.put(digest, image);
        if let Some(before) = self.state.tags.insert(name.clone(), digest) {
            self.changes.insert(Change::Image(before));
        }
        Ok(Done::Changed)
    }

    pub(super) fn remove_image(&mut self, name: &ImageName) -> Outcome {
        let digest = self.state.image_named(name).ok_or_else(|| Rejected::NoImage(name.clone()))?;
        let user =
            self.state.services().find(|(_, service)| !service.removing && service.spec.task.image == *name);
        if let Some((_, service)) = user {
            return Err(Rejected::ImageInUse { name: name.clone(), service: service.name.clone() });
        }
        self.state.tags.remove(name);
        self.changes.insert(Change::Image(digest));
        Ok(Done::Changed)
    }

    pub(super) fn keep_copy(&mut self, digest: Digest, node: NodeId) -> Outcome {
        let image = self.state.image(digest).ok_or(Rejected::NoImageContent(digest))?;
        if self.state.node(node).is_none() {
            return Err(Rejected::NoNode(node));
        }
        if image.copies.contains_key(&node) {
            return Ok(Done::Unchanged);
        }
        let mut image = image.clone();
        image.copies.insert(node, None);
        self.put(digest, image);
        Ok(Done::Changed)
    }

    pub(super) fn report_images(&mut self, node: NodeId, held: &[Digest]) -> Outcome {
        if self.state.node(node).is_none() {
            return Err(Rejected::NoNode(node));
        }
        let now = self.state.time;
        // A set, since every manager looks each of the cluster's images up in it before it can go on.
        let held: BTreeSet<Digest> = held.iter().copied().collect();
        let mut changed = Vec::new();
        for (digest, image) in self.state.images() {
            let has = held.contains(&digest);
            let copy = match (image.copies.get(&node), has) {
                (Some(Some(_)), true) | (Some(None) | None, false) => continue,
                (Some(None) | None, true) => Some(Some(now)),
                // What is still wanted is fetched again; what is not is forgotten.
                (Some(Some(_)), false) if self.state.image_is_wanted(digest) => Some(None),
                (Some(Some(_)), false) => None,
            };
            let mut image = image.clone();
            match copy {
                Some(copy) => image.copies.insert(node, copy),
                None => image.copies.remove(&node),
            };
            changed.push((digest, image));
        }
        if changed.is_empty() {
            return Ok(Done::Unchanged);
        }
        for (digest, image) in changed {
            self.put(digest, image);
        }
        Ok(Done::Changed)
    }

    pub(super) fn drop_image(&mut self, digest: Digest) -> Outcome {
        let image = self.state.image(digest).ok_or(Rejected::NoImageContent(digest))?;
        if self.state.image_is_wanted(digest) || image.copies.values().any(Option::is_some) {
            return Err(Rejected::ImageKept(digest));
        }
        self.state.images.remove(&digest);
        self.changes.insert(Change::Image(digest));
        Ok(Done::Changed)
    }

    fn put(&mut self, digest: Digest, image: Image) {
        self.state.images.insert(digest, Arc::new(image));
        self.changes.insert(Change::Image(digest));
    }
}
