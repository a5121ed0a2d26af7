//! Archives of every kind into a store, and what is refused.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod archive;

use std::fs;
use std::io::Write as _;

use archive::{
    ARCHITECTURE, LAYOUT, Tar, blobs, chain, config, content_of, digest, docker_save, index, layout_tar,
    oci_layout,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{ArchiveKind, ImportError, Imported, OpenError, Progress, Store};
use model::{Bytes, Digest, ImageName};
use tar::EntryType;
use tempfile::TempDir;

fn import(store: &Store, archive: &[u8]) -> Result<Imported, ImportError> {
    store.import(archive, &mut |_| {})
}

fn fresh() -> (TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn layer(path: &str, content: &str) -> Vec<u8> {
    Tar::new().file(path, content).bytes()
}

fn names(imported: &Imported) -> Vec<String> {
    imported.names.iter().map(ToString::to_string).collect()
}

#[test]
fn an_oci_layout_keeps_its_manifest_and_has_its_name() {
    let (_root, store) = fresh();
    let plain = layer("a", "one");
    let image = blobs(&config(std::slice::from_ref(&plain)), &[gzip(&plain)]);
    let archive = oci_layout(&image, r#""io.containerd.image.name":"docker.io/library/web:1""#);
    let imported = import(&store, &archive).unwrap();
    assert_eq!(imported.digest.to_string(), digest(&image.manifest));
    assert_eq!((imported.kind, names(&imported)), (ArchiveKind::OciLayout, vec!["web:1".to_owned()]));
    assert!(store.contains(&imported.digest));
    let size: usize = image.all.values().map(Vec::len).sum::<usize>() - image.manifest.len();
    assert_eq!(imported.size, Bytes(size as u64));
    assert_eq!(store.list()[0].size, imported.size);
    assert_eq!(store.blobs(&imported.digest).unwrap().len(), 3);
}

#[test]
fn a_docker_archive_gets_a_manifest_over_its_own_layers() {
    let (_root, store) = fresh();
    let layers = [layer("a", "one"), layer("b", "two")];
    let imported = import(&store, &docker_save(&layers, &["web:1", "web:latest"])).unwrap();
    assert_eq!(
        (imported.kind, names(&imported)),
        (ArchiveKind::DockerSave, vec!["web:1".to_owned(), "web:latest".to_owned()])
    );
    for layer in &layers {
        assert!(store.has_blob(&digest(layer).parse().unwrap()));
    }
    assert!(
        store.has_blob(&digest(config(&layers).as_bytes()).parse().unwrap()),
        "the configuration is as it was"
    );
}

#[test]
fn a_docker_archive_may_have_links_for_layers_and_compress_them() {
    let (_root, store) = fresh();
    let plain = layer("a", "one");
    let archive = Tar::new()
        .file("x/config", config(&[plain.clone(), plain.clone()]))
        .file("x/layer.tar.gz", gzip(&plain))
        .link(EntryType::Symlink, "y/layer.tar", "../x/layer.tar.gz")
        .file(
            "manifest.json",
            r#"[{"Config":"x/config","RepoTags":null,"Layers":["x/layer.tar.gz","y/layer.tar"]}]"#,
        )
        .bytes();
    let imported = import(&store, &archive).unwrap();
    assert_eq!(names(&imported), Vec::<String>::new());
    assert_eq!(store.blobs(&imported.digest).unwrap().len(), 3, "the layer is there once");
}

#[test]
fn an_archive_in_both_forms_is_taken_as_an_oci_layout_with_dockers_names() {
    let (_root, store) = fresh();
    let plain = layer("a", "one");
    let text = config(std::slice::from_ref(&plain));
    let image = blobs(&text, std::slice::from_ref(&plain));
    let path = |content: &[u8]| format!("blobs/sha256/{}", &digest(content)[7..]);
    let (config_path, layer_path) = (path(text.as_bytes()), path(&plain));
    let archive = layout_tar(&image.all)
        .file("index.json", index(&[&image], r#""org.opencontainers.image.ref.name":"2""#))
        .file(
            "manifest.json",
            format!(r#"[{{"Config":"{config_path}","RepoTags":["web:2"],"Layers":["{layer_path}"]}}]"#),
        )
        .file("oci-layout", LAYOUT)
        .bytes();
    let imported = import(&store, &archive).unwrap();
    assert_eq!((imported.kind, names(&imported)), (ArchiveKind::OciLayout, vec!["web:2".to_owned()]));
}

#[test]
fn a_root_file_system_is_one_image_however_it_is_compressed() {
    let (_root, store) = fresh();
    let tar = Tar::new().entry("bin/", EntryType::Directory, |_| {}, b"").file("./bin/sh", "#!").bytes();
    let zstd = zstd::stream::encode_all(tar.as_slice(), 3).unwrap();
    let imported: Vec<Imported> =
        [tar.clone(), gzip(&tar), zstd].iter().map(|a| import(&store, a).unwrap()).collect();
    assert_eq!(imported[0].kind, ArchiveKind::RootFileSystem);
    assert!(imported.iter().all(|one| *one == imported[0]), "{imported:?}");
    assert!(store.has_blob(&digest(&tar).parse().unwrap()), "the archive itself is the layer");
    assert_eq!(store.list().len(), 1);
}

#[test]
fn importing_again_changes_nothing() {
    let (root, store) = fresh();
    let archive = docker_save(&[layer("a", "one")], &["web"]);
    let first = import(&store, &archive).unwrap();
    let before = content_of(root.path());
    assert_eq!(import(&store, &archive).unwrap(), first);
    assert_eq!(content_of(root.path()), before);
    let (_other, elsewhere) = fresh();
    assert_eq!(import(&elsewhere, &archive).unwrap(), first, "on another node too");
}

#[test]
fn the_manifest_for_this_machine_is_found_among_others() {
    let (_root, store) = fresh();
    let plain = layer("a", "one");
    let ours = blobs(&config(std::slice::from_ref(&plain)), std::slice::from_ref(&plain));
    // The blobs for the other platform are not in the archive, and attestations are no images.
    let (wanted, size) = (digest(&ours.manifest), ours.manifest.len());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let nested = format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"{kind}","digest":"{absent}","size":9,"platform":{{"os":"linux","architecture":"s390x"}}}},
            {{"mediaType":"{kind}","digest":"{wanted}","size":{size},"platform":{{"os":"linux","architecture":"{ARCHITECTURE}"}}}},
            {{"mediaType":"{kind}","digest":"{absent}","size":9,"platform":{{"os":"unknown","architecture":"unknown"}},
              "annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}}]}}"#,
        absent = Digest([9; 32]),
    );
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":{},
            "annotations":{{"org.opencontainers.image.ref.name":"reg.example/web:3"}}}}]}}"#,
        digest(nested.as_bytes()),
        nested.len(),
    );
    let mut all = ours.all.clone();
    all.insert(digest(nested.as_bytes()), nested.into_bytes());
    let archive = layout_tar(&all).file("index.json", top).file("oci-layout", LAYOUT).bytes();
    let imported = import(&store, &archive).unwrap();
    assert_eq!(imported.digest.to_string(), wanted);
    assert_eq!(names(&imported), ["reg.example/web:3"]);
}

#[test]
fn progress_is_reported_in_both_stages() {
    let (_root, store) = fresh();
    let mut seen: Vec<Progress> = Vec::new();
    store
        .import(docker_save(&[layer("a", "one")], &[]).as_slice(), &mut |progress| seen.push(progress))
        .unwrap();
    assert!(seen.iter().any(|p| p.stage == image::Stage::Reading && p.done > Bytes(0)));
    assert!(seen.iter().any(|p| p.stage == image::Stage::Storing && p.done > Bytes(0)));
}

/// The archive is refused with an error that says this, and the store is as it was.
#[track_caller]
fn refused(archive: &[u8], says: &str) {
    let (root, store) = fresh();
    let error = import(&store, archive).unwrap_err();
    let text = chain(&error);
    assert!(text.contains(says), "{text}");
    assert_eq!(content_of(root.path()), Vec::<String>::new(), "after: {text}");
    assert_eq!(store.list(), []);
}

#[test]
fn what_is_no_archive_is_refused() {
    refused(b"", "the archive is empty");
    refused(&gzip(b""), "the archive is empty");
    refused(&Tar::new().bytes(), "the archive is empty");
    refused(b"hello", "this is not an image archive");
    refused(&[b'x'; 4096], "this is not an image archive");
    refused(&gzip(&gzip(&layer("a", "one"))), "this is not an image archive");
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let archive = docker_save(&[layer("a", "one")], &["web"]);
    refused(&archive[..700], "the archive is truncated");
    refused(&archive[..archive.len() - 1024], "the archive is truncated");
    let packed = gzip(&archive);
    refused(&packed[..packed.len() - 4], "truncated");
    let corrupt =
        packed.iter().enumerate().map(|(at, byte)| if at == 40 { !byte } else { *byte }).collect::<Vec<_>>();
    let (_root, store) = fresh();
    import(&store, &corrupt).unwrap_err();
}

#[test]
fn an_archive_of_two_images_is_refused() {
    let image = |name: &str| format!(r#"{{"Config":"c","RepoTags":["{name}"],"Layers":["l"]}}"#);
    let archive = Tar::new().file("manifest.json", format!("[{},{}]", image("a"), image("b"))).bytes();
    refused(&archive, "the archive has 2 images (a:latest, b:latest): save one at a time");
    let one = |content: &str| {
        let layers = [layer("a", content)];
        blobs(&config(&layers), &layers)
    };
    let (first, second) = (one("1"), one("2"));
    let all = first.all.clone().into_iter().chain(second.all.clone()).collect();
    let archive =
        layout_tar(&all).file("index.json", index(&[&first, &second], "")).file("oci-layout", LAYOUT).bytes();
    refused(&archive, "the archive has 2 images: save one at a time");
    refused(&Tar::new().file("manifest.json", "[]").bytes(), "the archive has no image");
}

#[test]
fn an_archive_that_lacks_a_part_is_refused() {
    let manifest = r#"[{"Config":"config.json","RepoTags":null,"Layers":["0/layer.tar"]}]"#;
    let layers = [layer("a", "one")];
    refused(&Tar::new().file("manifest.json", manifest).bytes(), "the archive lacks `config.json`");
    let archive = Tar::new().file("manifest.json", manifest).file("config.json", config(&layers)).bytes();
    refused(&archive, "the archive lacks `0/layer.tar`");
    let image = blobs(&config(&layers), &layers);
    for lacking in image.all.keys() {
        let mut all = image.all.clone();
        all.remove(lacking);
        let archive =
            layout_tar(&all).file("index.json", index(&[&image], "")).file("oci-layout", LAYOUT).bytes();
        refused(&archive, &format!("the archive lacks `blobs/sha256/{}`", &lacking[7..]));
    }
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let layers = [layer("a", "one")];
    let image = blobs(&config(&layers), &layers);
    for changed in image.all.keys() {
        let mut all = image.all.clone();
        if let Some(content) = all.get_mut(changed) {
            content[20] ^= 1;
        }
        let archive =
            layout_tar(&all).file("index.json", index(&[&image], "")).file("oci-layout", LAYOUT).bytes();
        refused(&archive, &format!("but should have {changed}"));
    }
    // Docker's form has no digest of a layer but the configuration's.
    let archive = Tar::new()
        .file("c", config(&layers))
        .file("l", layer("a", "other"))
        .file("manifest.json", r#"[{"Config":"c","RepoTags":null,"Layers":["l"]}]"#)
        .bytes();
    refused(&archive, &format!("but the image's configuration says {}", digest(&layers[0])));
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let layers = [layer("a", "one")];
    let foreign = config(&layers).replace(ARCHITECTURE, "s390x");
    let archive = Tar::new()
        .file("c", &foreign)
        .file("l", &layers[0])
        .file("manifest.json", r#"[{"Config":"c","RepoTags":null,"Layers":["l"]}]"#)
        .bytes();
    refused(&archive, "it is for linux/s390x, and this machine runs linux/");
    refused(&oci_layout(&blobs(&foreign, &layers), ""), "only for linux/s390x");
}

#[test]
fn hostile_documents_are_refused() {
    let docker = |manifest: &str| Tar::new().file("manifest.json", manifest).bytes();
    refused(&docker(&"[".repeat(100_000)), "is not the JSON that it should be");
    refused(&docker("{}"), "is not the JSON that it should be");
    refused(&docker(&" ".repeat(5 << 20)), "is larger than 4 MiB");
    let twice = Tar::new().file("manifest.json", "[]").file("manifest.json", "[1]").bytes();
    refused(&twice, "`manifest.json` is there twice");
    let loops = Tar::new()
        .link(EntryType::Symlink, "a", "manifest.json")
        .link(EntryType::Symlink, "manifest.json", "a")
        .bytes();
    refused(&loops, "`manifest.json` is no plain file");
    let layers = [layer("a", "one")];
    let root = config(&layers).replace(r#""Cmd""#, r#""User":"4294967296","Cmd""#);
    refused(&oci_layout(&blobs(&root, &layers), ""), "the number is larger than 2147483647");
}

#[test]
fn hostile_layers_are_refused_before_they_are_stored() {
    refused(&layer("../escape", "x"), "it leads out of the root with `..`");
    refused(&layer("a/../../escape", "x"), "it leads out of the root with `..`");
    let link = Tar::new().link(EntryType::Link, "passwd", "../../etc/passwd").bytes();
    refused(&link, "it leads out of the root with `..`");
    let deep = Tar::new().pax(&[("path", "d/".repeat(300).as_bytes())]).file("d", "").bytes();
    refused(&deep, "it is more than 200 directories deep");
    let huge = Tar::new().entry("a", EntryType::Regular, |header| header.set_size(20 << 30), b"").bytes();
    refused(&huge, "truncated");
    let bomb = layer("zeroes", &"\0".repeat(80 << 20));
    refused(&gzip(&bomb), "it grows more than 200-fold");
    refused(&docker_save(&[b"no tar at all".repeat(100)], &[]), "there is no tar header at byte 0");
}

#[test]
fn a_peer_copies_an_image_blob_by_blob() {
    let (_here, source) = fresh();
    let (_there, copy) = fresh();
    let image =
        import(&source, &docker_save(&[layer("a", "one"), layer("b", "two")], &["web"])).unwrap().digest;
    let mut rounds = Vec::new();
    loop {
        let missing = copy.complete(&image).unwrap();
        rounds.push(missing.len());
        if missing.is_empty() {
            break;
        }
        for blob in missing {
            let size = Bytes(source.open_blob(&blob).unwrap().metadata().unwrap().len());
            let mut ingest = copy.ingest(&blob, size).unwrap();
            let mut file = source.open_blob(&blob).unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut content).unwrap();
            content.chunks(100).for_each(|piece| ingest.write(piece).unwrap());
            assert_eq!(ingest.finish().unwrap(), size);
        }
    }
    assert_eq!(rounds, [1, 3, 0], "the manifest, then configuration and layers");
    assert!(copy.contains(&image));
    assert_eq!(copy.list(), source.list());
}

#[test]
fn an_image_that_came_by_half_is_removed_but_for_what_others_use() {
    let (_here, source) = fresh();
    let (there, copy) = fresh();
    let shared = layer("base", "base");
    import(&copy, &docker_save(std::slice::from_ref(&shared), &["other"])).unwrap();
    let before = content_of(there.path());
    let image = import(&source, &docker_save(&[shared, layer("a", "one")], &["web"])).unwrap().digest;
    let content = |blob: &Digest| {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut source.open_blob(blob).unwrap(), &mut content).unwrap();
        content
    };
    let take = |blob: &Digest| {
        let content = content(blob);
        let mut ingest = copy.ingest(blob, Bytes(content.len() as u64)).unwrap();
        ingest.write(&content).unwrap();
        ingest.finish().unwrap();
    };
    take(&image);
    // Configuration and layer are wanted; one of them comes, and then nobody wants the image any more.
    let missing = copy.complete(&image).unwrap();
    assert_eq!(missing.len(), 2);
    take(&missing[0]);
    assert_ne!(copy.last_used(&image), std::time::UNIX_EPOCH, "it is known since when it has been so");
    assert!(!copy.remove(&image).unwrap(), "it was never here");
    assert_eq!(content_of(there.path()), before);
    // Nothing can be read in a manifest that is none, and it goes all the same.
    let no_manifest = missing[1];
    take(&no_manifest);
    assert!(!copy.remove(&no_manifest).unwrap());
    assert_eq!(content_of(there.path()), before);
    // It can come all the same.
    take(&image);
    copy.complete(&image).unwrap().iter().for_each(take);
    assert_eq!(copy.complete(&image).unwrap(), []);
    assert!(copy.contains(&image));
}

#[test]
fn a_blob_that_is_not_what_was_asked_for_leaves_nothing() {
    let (root, store) = fresh();
    let asked: Digest = digest(b"right").parse().unwrap();
    let mut wrong = store.ingest(&asked, Bytes(100)).unwrap();
    wrong.write(b"wrong").unwrap();
    assert!(chain(&wrong.finish().unwrap_err()).contains("what came as blob"));
    let mut long = store.ingest(&asked, Bytes(4)).unwrap();
    assert!(chain(&long.write(b"right").unwrap_err()).contains("is larger than the 4 B"));
    let mut dropped = store.ingest(&asked, Bytes(5)).unwrap();
    dropped.write(b"rig").unwrap();
    drop((long, dropped));
    assert_eq!(content_of(root.path()), Vec::<String>::new());
    assert_eq!(store.complete(&asked).unwrap(), [asked]);
}

#[test]
fn what_a_crash_leaves_is_gone_when_the_store_is_opened() {
    let (root, store) = fresh();
    let image = import(&store, &docker_save(&[layer("a", "one")], &["web"])).unwrap().digest;
    let whole = content_of(root.path());
    drop(store);
    fs::write(root.path().join("ingest/7"), "half").unwrap();
    fs::create_dir_all(root.path().join("layers/.tmp-3/fs/etc")).unwrap();
    fs::create_dir_all(root.path().join(format!("layers/{}/fs", "0".repeat(64)))).unwrap();
    fs::write(root.path().join(format!("blobs/sha256/{}", "0".repeat(64))), "of no image").unwrap();
    let store = Store::open(root.path()).unwrap();
    assert_eq!(content_of(root.path()), whole);
    assert!(store.contains(&image));
}

#[test]
fn a_store_is_open_once_and_a_damaged_one_not_at_all() {
    let (root, store) = fresh();
    assert!(matches!(Store::open(root.path()), Err(OpenError::InUse(_))));
    let image = import(&store, &layer("a", "one")).unwrap().digest;
    drop(store);
    fs::write(root.path().join(format!("images/{}.json", image.hex())), "{\"ver").unwrap();
    assert!(matches!(Store::open(root.path()), Err(OpenError::Damaged { .. })));
}

#[test]
fn an_image_that_lost_a_blob_is_not_claimed() {
    let (root, store) = fresh();
    let plain = layer("a", "one");
    let image = import(&store, &docker_save(std::slice::from_ref(&plain), &["web"])).unwrap().digest;
    fs::remove_file(root.path().join(format!("blobs/sha256/{}", &digest(&plain)[7..]))).unwrap();
    assert!(!store.contains(&image));
    assert_eq!(store.list(), []);
    assert_eq!(store.complete(&image).unwrap(), [digest(&plain).parse::<Digest>().unwrap()]);
}

#[test]
fn removing_an_image_keeps_what_others_use() {
    let (root, store) = fresh();
    let shared = layer("base", "base");
    let first = import(&store, &docker_save(&[shared.clone(), layer("a", "one")], &["a"])).unwrap().digest;
    let before = content_of(root.path());
    let second = import(&store, &docker_save(&[shared.clone(), layer("b", "two")], &["b"])).unwrap().digest;
    assert!(store.remove(&second).unwrap());
    assert_eq!(content_of(root.path()), before);
    assert!(store.contains(&first) && !store.contains(&second));
    assert!(!store.remove(&second).unwrap(), "it is gone already");
    assert!(store.remove(&first).unwrap());
    assert_eq!(content_of(root.path()), Vec::<String>::new());
}

#[test]
fn what_was_saved_is_imported_as_the_same_image_under_the_same_names() {
    let (_root, store) = fresh();
    let imported = import(&store, &docker_save(&[layer("a", "one"), layer("b", "two")], &["app:1"])).unwrap();
    let save = |names: &[&str]| {
        let names: Vec<ImageName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut archive = Vec::new();
        store.save(&imported.digest, &names, &mut archive).unwrap();
        archive
    };
    let called = ["app:1", "reg.lan:5000/app:2"];
    let archive = save(&called);
    assert!(archive == save(&called), "the same image is the same archive");
    let (_other_root, other) = fresh();
    let again = import(&other, &archive).unwrap();
    assert_eq!(
        (again.digest, again.size, again.kind),
        (imported.digest, imported.size, ArchiveKind::OciLayout)
    );
    assert_eq!(names(&again), called);
    assert!(names(&import(&other, &save(&[])).unwrap()).is_empty());
    let absent = store.save(&Digest([9; 32]), &[], Vec::new()).unwrap_err();
    assert!(chain(&absent).contains("is not on this node"), "{}", chain(&absent));
}

#[test]
fn an_image_says_what_it_is_made_of() {
    let (_root, store) = fresh();
    let layers = [layer("a", "one"), layer("b", "two")];
    let image = import(&store, &docker_save(&layers, &[])).unwrap().digest;
    let parts = store.parts(&image).unwrap();
    let diff_ids = parts.layers.unwrap().into_iter().map(|layer| layer.diff_id.to_string());
    assert_eq!(diff_ids.collect::<Vec<_>>(), layers.each_ref().map(|layer| digest(layer)));
    let details = store.details(&image).unwrap();
    for part in
        [format!(r#""platform":"linux/{ARCHITECTURE}""#), r#""Cmd":["/run"]"#.to_owned(), digest(&layers[1])]
    {
        assert!(details.contains(&part), "it does not say {part}: {details}");
    }
    let before = store.last_used(&image);
    store.touch(&image).unwrap();
    assert!(store.last_used(&image) >= before);
    store.touch(&Digest([9; 32])).unwrap();
    let space = store.space().unwrap();
    assert!(space.free <= space.total && space.total > Bytes(0));
}
