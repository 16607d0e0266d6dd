//! Both ways to make an overlay, on whatever kernel this is; needs root.

use std::collections::HashSet;
use std::fs;

use super::*;

/// A directory that goes away with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("knarr-overlay-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("this test needs root and a temporary directory");
        Self(path)
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("made");
        path
    }

    /// Layers, top-most first, each with a file of its own and one that all have.
    fn layers(&self, count: usize) -> Vec<PathBuf> {
        (0..count)
            .map(|at| {
                let path = self.directory(&format!("{at}-{}", "x".repeat(240)));
                fs::write(path.join(format!("own{at}")), at.to_string()).expect("written");
                fs::write(path.join("all"), at.to_string()).expect("written");
                path
            })
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn inside(mount: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd()))
}

fn check(mount: &OwnedFd, layers: usize) {
    for at in 0..layers {
        let own =
            fs::read_to_string(inside(mount, &format!("own{at}"))).expect("every layer is in it");
        assert_eq!(own, at.to_string());
    }
    assert_eq!(fs::read_to_string(inside(mount, "all")).expect("read"), "0");
    fs::write(inside(mount, "new"), "written").expect("writable");
}

fn table() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("read")
}

/// How often something is mounted at the root, as others may mount elsewhere meanwhile.
fn roots() -> usize {
    table()
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/"))
        .count()
}

fn made(result: Result<OwnedFd, Failure>) -> OwnedFd {
    result.map_err(|failure| failure.error).expect("mounted")
}

#[test]
fn many_layers_with_long_paths_go_by_name() {
    let place = Place::new("above");
    for count in [1, 40, MOST_LAYERS] {
        let layers = place.layers(count);
        let (upper, work) = (
            place.directory(&format!("upper{count}")),
            place.directory(&format!("work{count}")),
        );
        let mount = made(above_by_name(&layers, &upper, &work));
        check(&mount, count);
        assert_eq!(
            fs::read_to_string(upper.join("new")).expect("read"),
            "written"
        );
        assert!(!table().contains(place.0.to_str().expect("text")));
    }
}

#[test]
fn one_layer_too_many_is_told() {
    let place = Place::new("many");
    let layers = place.layers(MOST_LAYERS + 1);
    let (upper, work) = (place.directory("upper"), place.directory("work"));
    let failure = above_by_name(&layers, &upper, &work).expect_err("refused");
    assert_eq!(failure.error.kind, Kind::Unsupported);
    assert!(failure.error.message.contains("129 layers"));
}

#[test]
fn a_throwaway_goes_by_name_and_nobody_sees_it() {
    let place = Place::new("throwaway");
    let layers = place.layers(40);
    let before = (std::env::current_dir().expect("there"), roots());
    let mount = made(throwaway_by_name(&layers, 1 << 20));
    check(&mount, 40);
    assert_eq!((std::env::current_dir().expect("there"), roots()), before);
    assert!(!layers[0].join("new").exists());
    fs::write(inside(&mount, "big"), vec![1; 2 << 20]).expect_err("its size is limited");
}

#[test]
fn the_host_below_a_throwaway() {
    let mount = made(throwaway_by_name(&[PathBuf::from("/")], 0));
    assert!(inside(&mount, "etc/passwd").exists());
    fs::write(inside(&mount, "knarr-overlay-test"), "x").expect("writable");
    assert!(!Path::new("/knarr-overlay-test").exists());
}

#[test]
fn a_missing_layer_is_named_either_way() {
    let place = Place::new("missing");
    let (upper, work) = (place.directory("upper"), place.directory("work"));
    let missing = place.0.join("gone");
    let lower = [missing.clone()];
    let errors = [
        above(&lower, &upper, &work).expect_err("refused"),
        above_by_name(&lower, &upper, &work)
            .expect_err("refused")
            .error,
        throwaway_by_name(&lower, 0).expect_err("refused").error,
    ];
    for error in errors {
        assert_eq!(error.kind, Kind::NotFound);
        assert!(
            error.message.contains(missing.to_str().expect("text")),
            "{error:?}"
        );
    }
}

#[test]
fn the_way_that_works_is_kept() {
    let tmpfs = || tmpfs(0);
    let refused = || Err(Failure::new("overlay layer", Path::new("/x"), Errno::INVAL));
    let broken = || Err(Failure::new("overlay layer", Path::new("/x"), Errno::NOENT));
    let way = Way::unknown();
    way.take(broken, tmpfs)
        .expect_err("an error that says nothing about the kernel");
    way.take(refused, tmpfs).expect("the second way");
    way.take(tmpfs, refused)
        .expect_err("the first is not tried again");
    let way = Way::unknown();
    way.take(tmpfs, refused).expect("the first way");
    way.take(refused, tmpfs)
        .expect_err("the second is not tried any more");
}

#[test]
fn names_are_plain_and_differ() {
    let names: Vec<u8> = (0..MOST_LAYERS).map_while(name_of).collect();
    assert_eq!(names.len(), MOST_LAYERS);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), MOST_LAYERS);
    assert!(names.iter().all(|name| !b",:\\/.= \t\n\0".contains(name)));
    const { assert!(2 * MOST_LAYERS - 1 <= 255) };
    assert_eq!(name_of(MOST_LAYERS), None);
}
