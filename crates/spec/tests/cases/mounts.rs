use expect_test::expect;

use super::check_web;

#[test]
fn a_bind_in_the_short_form_makes_what_is_missing() {
    check_web(
        "volumes:\n- /srv/data:/data\n- /etc/localtime:/etc/localtime:ro\n- /srv/shared/:/shared//:rw,rshared\n- /srv/slave:/slave:slave",
        expect![[r#"
        web
          image nginx:latest
          bind /srv/data at /data
          bind /srv/shared at /shared, shared
          bind /srv/slave at /slave, slave
          bind /etc/localtime at /etc/localtime, read-only
    "#]],
    );
    check_web(
        "volumes:\n- /srv/a:/a:z\n- /srv/b:/b:ro,Z,cached",
        expect![[r#"
        web
          image nginx:latest
          bind /srv/a at /a
          bind /srv/b at /b, read-only
        warning a.yaml:5:7: `z` asks for SELinux labels, and gantry does not set any; take it out; where a node has SELinux, label the path there
        warning a.yaml:6:7: `Z` asks for SELinux labels, and gantry does not set any; take it out; where a node has SELinux, label the path there
        warning a.yaml:6:7: `cached` means nothing on Linux, where a mount is always consistent; take it out
    "#]],
    );
}

#[test]
fn what_is_no_path_of_every_node_is_refused() {
    check_web(
        "volumes:\n- ./conf:/etc/app\n- ~/x:/x\n- ../y:/y\n- .:/z\n- data:/data\n- /data\n- /a:b\n- /a:/b:rx\n- /a:/b:ro,rw\n- /a:/b:ro:z\n- \":/b\"\n- \"/a::ro\"\n- /a:/\n- /a:/b/../c\n- 5\n- /srv/{{.Task.Slot}}:/d\n- \"\"",
        expect![[r#"
        error a.yaml:5:7: in a cluster a path is of each node, so `./conf` has to be absolute; write it from `/` on, and put what it holds on every node
        error a.yaml:6:7: in a cluster a path is of each node, so `~/x` has to be absolute; write it from `/` on, and put what it holds on every node
        error a.yaml:7:7: in a cluster a path is of each node, so `../y` has to be absolute; write it from `/` on, and put what it holds on every node
        error a.yaml:8:7: in a cluster a path is of each node, so `.` has to be absolute; write it from `/` on, and put what it holds on every node
        error a.yaml:9:7: gantry does not do volumes yet, and this is the volume `data`; mount a path that every node has, such as `/srv/data:/data`, or a `tmpfs`
        error a.yaml:10:7: gantry does not do volumes yet, and this is an anonymous volume; mount a path that every node has, such as `/srv/data:/data`, or a `tmpfs`
        error a.yaml:11:7: the container's path must be an absolute path, and this is `b`; begin it with `/`
        error a.yaml:12:7: `rx` is not an option of a mounted path; there are ro, rw, shared, rshared, slave, rslave, private and rprivate
        error a.yaml:13:7: the mount is `ro` and `rw`; keep one of them
        error a.yaml:14:7: `/a:/b:ro:z` is not a volume: it has too many colons; a path with a colon needs the long form, `{type: bind, …}`
        error a.yaml:15:7: `:/b` is not a volume: there is nothing between its colons; write for example `/srv/data:/data:ro`
        error a.yaml:16:7: `/a::ro` is not a volume: there is nothing between its colons; write for example `/srv/data:/data:ro`
        error a.yaml:17:7: nothing can be mounted over the container's `/`; name a directory of the container
        error a.yaml:18:7: the container's path must not have `..` in it, and this is `/b/../c`; write where it leads
        error a.yaml:19:7: a volume must be a string or a mapping, and this is the number `5`; write for example `/srv/data:/data:ro`
        error a.yaml:20:7: templates are not done yet; Docker Swarm would fill in `{{…}}`; write what it stands for
        error a.yaml:21:7: `` is not a volume: there is nothing between its colons; write for example `/srv/data:/data:ro`
    "#]],
    );
}

#[test]
fn the_long_form_says_more() {
    check_web(
        "volumes:\n- type: bind\n  source: /srv/a\n  target: /a\n  read_only: true\n  bind: {create_host_path: false, propagation: rslave, recursive: disabled}\n- {type: bind, source: /srv/b, target: /b}\n- {type: bind, source: /srv/b, target: /b2, bind: {propagation: \"\"}}\n- {type: tmpfs, target: /c, tmpfs: {size: 64m, mode: 01777}}\n- {type: tmpfs, target: /d, read_only: \"true\", tmpfs: {size: 1048576, mode: \"0700\"}}",
        expect![[r#"
        web
          image nginx:latest
          bind /srv/a at /a, there already, alone, slave, read-only
          bind /srv/b at /b
          bind /srv/b at /b2
          tmpfs at /c, 64 MiB, mode 1777
          tmpfs at /d, 1 MiB, mode 700, read-only
    "#]],
    );
    check_web(
        "volumes:\n- {type: bind, source: /a, target: /a, consistency: cached, bind: {selinux: z}}\n- {type: tmpfs, target: /t, tmpfs: {mode: 1777}}",
        expect![[r#"
        web
          image nginx:latest
          bind /a at /a
          tmpfs at /t, mode 3361
        warning a.yaml:5:44: `cached` means nothing on Linux, where a mount is always consistent; take it out
        warning a.yaml:5:72: `z` asks for SELinux labels, and gantry does not set any; take it out; where a node has SELinux, label the path there
        warning a.yaml:6:47: this number is decimal; in octal it is 0o3361; begin it with 0 if it was meant to be octal
    "#]],
    );
}

#[test]
fn the_long_form_is_checked() {
    check_web(
        "volumes:\n- {source: /a, target: /a}\n- {type: volume, source: data, target: /b, volume: {nocopy: true}}\n- {type: bind, target: /c}\n- {type: bind, source: ./d, target: /d}\n- {type: bind, source: /e}\n- {type: bind, source: /f, target: /f, tmpfs: {size: 1m}}\n- {type: tmpfs, source: /g, target: /g, bind: {}}\n- {type: disk, target: /h}\n- {type: bind, source: /i, target: /i, bind: {propagation: x, recursive: readonly, selinx: z}}\n- {type: tmpfs, target: /j, tmpfs: {mode: 99999, size: big}}\n- {type: npipe, source: a, target: b}\n- {type: 5, target: /k}",
        expect![[r#"
        error a.yaml:5:7: this mount has no `type`; write `type: bind` or `type: tmpfs`
        error a.yaml:6:14: gantry does not do volumes yet, and this is a mount of the type `volume`; mount a path that every node has, such as `/srv/data:/data`, or a `tmpfs`
        error a.yaml:6:48: gantry does not do `volume` yet; take it out to deploy without it
        error a.yaml:7:7: this bind has no `source`; name the node's path
        error a.yaml:8:28: in a cluster a path is of each node, so `./d` has to be absolute; write it from `/` on, and put what it holds on every node
        error a.yaml:9:7: this mount has no `target`; name the path in the container
        error a.yaml:10:44: `tmpfs` belongs to a mount of the type `tmpfs`; take it out, or change the `type`
        error a.yaml:11:29: `source` belongs to a mount of the type `bind`; take it out, or change the `type`
        error a.yaml:11:45: `bind` belongs to a mount of the type `bind`; take it out, or change the `type`
        error a.yaml:12:14: `disk` is not a type of a mount; write `type: bind` or `type: tmpfs`
        error a.yaml:13:64: `propagation` cannot be `x`; write rprivate, rslave or rshared
        error a.yaml:13:78: gantry does not do `recursive: readonly` yet; write enabled, or disabled to leave out what is mounted below the path
        error a.yaml:13:88: unknown key `selinx`; did you mean `selinux`?
        error a.yaml:14:47: `mode` must be permission bits, and this is the number `99999`; write it in octal, for example 01777
        error a.yaml:14:60: `size`: `big` is not a size: write for example 64m, 1gb or 1048576
        error a.yaml:15:14: gantry does not do volumes yet, and this is a mount of the type `npipe`; mount a path that every node has, such as `/srv/data:/data`, or a `tmpfs`
        error a.yaml:16:14: `type` must be a string, and this is the number `5`; put it in quotes
    "#]],
    );
}

#[test]
fn a_tmpfs_has_options() {
    check_web(
        "tmpfs:\n- /run\n- /tmp:size=64m,mode=1770,uid=1000,gid=1000,exec,nosuid,nodev\n- /cache:ro,noexec,size=50",
        expect![[r#"
        web
          image nginx:latest
          tmpfs at /run
          tmpfs at /tmp, 64 MiB, mode 1770, uid 1000, gid 1000, exec
          tmpfs at /cache, 50 B, read-only
    "#]],
    );
    check_web(
        "tmpfs: /run:rw",
        expect![[r#"
        web
          image nginx:latest
          tmpfs at /run
    "#]],
    );
    check_web(
        "tmpfs: [run, \"/a:size=50%\", \"/b:mode=999\", \"/c:uid=me\", \"/d:noatime\", \"/e:nr_inodes=5\", \"/f:size=0\", 5]",
        expect![[r#"
        error a.yaml:4:13: the container's path must be an absolute path, and this is `run`; begin it with `/`
        error a.yaml:4:18: `50%` is not the size of a tmpfs; write for example size=64m
        error a.yaml:4:33: `999` is not a mode of a directory; write it in octal, for example mode=1777
        error a.yaml:4:48: `me` is not the number of a user or group; write for example uid=1000
        error a.yaml:4:61: gantry does not do the option `noatime` of a tmpfs; there are size, mode, uid, gid, exec, noexec, ro and rw
        error a.yaml:4:75: gantry does not do the option `nr_inodes=5` of a tmpfs; there are size, mode, uid, gid, exec, noexec, ro and rw
        error a.yaml:4:93: `0` is not the size of a tmpfs; write for example size=64m
        error a.yaml:4:106: each item of `tmpfs` must be a string, and this is the number `5`; put it in quotes
    "#]],
    );
}

#[test]
fn one_thing_is_mounted_at_one_path() {
    check_web(
        "volumes: [\"/a:/x\", \"/b:/x/\"]\ntmpfs: [/y, \"/y:exec\"]",
        expect![[r#"
        web
          image nginx:latest
          bind /b at /x
          tmpfs at /y, exec
        warning a.yaml:4:24: something is mounted at `/x` on line 4, and this replaces it; keep one of them
        warning a.yaml:5:17: something is mounted at `/y` on line 5, and this replaces it; keep one of them
    "#]],
    );
    check_web(
        "volumes: [\"/a:/x\"]\ntmpfs: /x",
        expect![[r#"
        error a.yaml:5:12: `volumes` already mounts something at `/x` on line 4; keep one of them
    "#]],
    );
    check_web(
        "tmpfs: /a/b\nvolumes:\n- /srv/c:/a/b/c/d\n- /srv/a:/a",
        expect![[r#"
        web
          image nginx:latest
          bind /srv/a at /a
          tmpfs at /a/b
          bind /srv/c at /a/b/c/d
    "#]],
    );
}
