//! Images: named by users, copied by controllers, held by agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Bytes, Digest, Image, ImageName, NodeId, Origin};

use crate::apply::{Change, Step};
use crate::command::{Done, Outcome, Rejected};
use crate::tables::{COPIES, Tag};

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
        let mut image = self.image_or_new(digest);
        image.size = size;
        image.copies.insert(holder, Some(now));
        self.put(digest, image);
        self.tag(name, Tag { image: digest, asked: None, automatic: false });
        Ok(Done::Changed)
    }

    pub(super) fn name_image(
        &mut self,
        name: &ImageName,
        digest: Digest,
        size: Bytes,
        origin: Option<&Origin>,
        automatic: bool,
    ) -> Outcome {
        if origin.is_none() && !self.state.image_is_kept(digest) {
            return Err(Rejected::NoImageContent(digest));
        }
        let before = self.state.tag(name).copied();
        let mut image = self.image_or_new(digest);
        if size > Bytes(0) {
            image.size = size;
        }
        // The one that has just answered is the one to ask.
        image.origin = origin.cloned().or(image.origin);
        if self.state.image(digest) != Some(&image) {
            self.put(digest, image);
        }
        // What somebody asked for by hand stays so when it is deployed as well.
        let automatic = automatic && before.is_none_or(|before| before.automatic);
        let asked = match origin {
            Some(_) => Some(self.state.time),
            None => before.filter(|before| before.image == digest).and_then(|before| before.asked),
        };
        let tag = Tag { image: digest, asked, automatic };
        if before == Some(tag) {
            return Ok(Done::Unchanged);
        }
        self.tag(name, tag);
        Ok(Done::Changed)
    }

    fn image_or_new(&self, digest: Digest) -> Image {
        self.state.image(digest).cloned().unwrap_or_else(|| Image {
            digest,
            size: Bytes(0),
            imported: self.state.time,
            copies: BTreeMap::new(),
            origin: None,
            idle: None,
        })
    }

    fn tag(&mut self, name: &ImageName, tag: Tag) {
        let before = self.state.tags.insert(name.clone(), tag);
        self.changes.insert(Change::Image(tag.image));
        self.changes.extend(before.map(|before| Change::Image(before.image)));
    }

    pub(super) fn remove_image(&mut self, name: &ImageName) -> Outcome {
        let digest = self.state.image_named(name).ok_or_else(|| Rejected::NoImage(name.clone()))?;
        if let Some(service) = self.state.user_of(name) {
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
                // What is still wanted and has too few copies is fetched again; of anything else this one is forgotten.
                (Some(Some(_)), false) if self.is_scarce(digest, node) => Some(None),
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

    /// What a node holds that is no more, nobody has from it.
    pub(super) fn lose_copies(&mut self, node: NodeId) {
        let held = self.state.images().filter(|(_, image)| image.copies.contains_key(&node));
        let without = held.map(|(digest, image)| {
            let mut image = image.clone();
            image.copies.remove(&node);
            (digest, image)
        });
        for (digest, image) in without.collect::<Vec<_>>() {
            self.put(digest, image);
        }
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

    /// Whether a copy on this node would be missed.
    fn is_scarce(&self, digest: Digest, node: NodeId) -> bool {
        let Some(image) = self.state.image(digest) else { return false };
        let others = image.copies.iter().filter(|(id, since)| **id != node && since.is_some());
        image.origin.is_none() && others.count() < COPIES && self.state.image_is_wanted(digest)
    }

    /// Notes since when images are not used, of all whose use may have changed.
    pub(super) fn note_idle_images(&mut self) {
        let mut touched = BTreeSet::new();
        for change in &self.changes {
            match change {
                Change::Image(digest) => drop(touched.insert(*digest)),
                Change::Service(id) => {
                    let templates = self.state.service(*id).into_iter().flat_map(|s| s.templates.values());
                    touched.extend(templates.map(|template| template.image));
                }
                Change::Cluster
                | Change::Node(_)
                | Change::Stack(_)
                | Change::Task(..)
                | Change::Registry(_) => {}
            }
        }
        if touched.is_empty() {
            return;
        }
        let templates = self.state.services().flat_map(|(_, service)| service.templates.values());
        let used: BTreeSet<Digest> = templates.map(|template| template.image).collect();
        for digest in touched {
            let Some(image) = self.state.image(digest) else { continue };
            let idle = if used.contains(&digest) { None } else { image.idle.or(Some(self.state.time)) };
            if idle != image.idle {
                let image = Image { idle, ..image.clone() };
                self.put(digest, image);
            }
        }
    }

    fn put(&mut self, digest: Digest, image: Image) {
        self.state.images.insert(digest, Arc::new(image));
        self.changes.insert(Change::Image(digest));
    }
}
