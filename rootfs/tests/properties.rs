//! Random layers against the obvious merge, read back without a disk being mounted or checked one
//! by one: the kernel or debugfs reads one disk per case.

mod support;

use proptest::prelude::*;
use support::tar::{
    Dialect, Item, device, directory, fifo, file, hard_link, opaque, symlink, whiteout,
};
use support::{assert_same, build_at, debugfs, fsck, image, reference};

/// Few names, so that layers meet.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn item() -> impl Strategy<Value = Item> {
    let data = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..40),
        (0_usize..60_000).prop_map(|length| [vec![0; length], vec![7; 9]].concat()),
    ];
    let dialect = prop::sample::select(vec![
        Dialect::Pax,
        Dialect::Gnu,
        Dialect::GnuSparse,
        Dialect::PaxSparse10,
    ]);
    let time = (
        -2_000_000_000_i64..4_000_000_000,
        prop_oneof![Just(0), 1_u32..1_000_000_000],
    );
    prop_oneof![
        4 => (path(), data, dialect).prop_map(|(path, data, dialect)| {
            file(path, data).dialect(dialect)
        }),
        4 => (path(), 0_u32..0o10000, time).prop_map(|(path, mode, (seconds, nanoseconds))| {
            directory(path).mode(mode).at(seconds, nanoseconds)
        }),
        2 => (path(), path()).prop_map(|(path, target)| hard_link(path, target)),
        2 => (path(), path()).prop_map(|(path, target)| symlink(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| symlink(path, format!("/{target}"))),
        1 => (path(), path()).prop_map(|(path, target)| symlink(path, format!("../{target}"))),
        1 => path().prop_map(fifo),
        1 => path().prop_map(|path| device(path, b'3', 5, 1)),
        3 => path().prop_map(|path| whiteout(&path)),
        2 => path().prop_map(|path| opaque(&path)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn layers_merge_as_one_would_explain_it(
        layers in prop::collection::vec(prop::collection::vec(item(), 0..10), 1..5),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        let built = build_at(&image(&layers), &path, 16 << 20);
        match reference::merge(&layers) {
            Some(expected) => {
                built.unwrap();
                fsck(&path);
                if let Some(found) = debugfs::listing(&path) {
                    assert_same(&debugfs::without_values(&expected), &found);
                }
            }
            None => prop_assert!(built.is_err(), "the reference refuses it"),
        }
    }
}
