//! Ends that do not keep to the rules, by their bytes.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    time::Duration,
};

use sortie_channel::copy::{Decoder, Digest, Hello, Message, Meta, Name, VERSION, WINDOW};
use sortie_copy::{CopyError, Download, Stop, Upload};

const META: Meta = Meta {
    mode: 0o644,
    seconds: 0,
    nanoseconds: 0,
};
/// Of nothing.
const EMPTY: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// A client that says what it likes.
struct Stranger {
    stream: UnixStream,
    decoder: Decoder,
    node: std::thread::JoinHandle<Result<(), CopyError>>,
}

impl Stranger {
    fn uploading(to: &Path) -> Self {
        let node = Upload {
            path: to.to_owned(),
            umask: 0o022,
        };
        Self::with(move |stream| node.serve(stream, &Stop::default()))
    }

    fn downloading(from: &Path) -> Self {
        let node = Download {
            path: from.to_owned(),
        };
        Self::with(move |stream| node.serve(stream, &Stop::default()))
    }

    fn with(serve: impl FnOnce(&UnixStream) -> Result<(), CopyError> + Send + 'static) -> Self {
        let (stream, there) = UnixStream::pair().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut stranger = Self {
            stream,
            decoder: Decoder::default(),
            node: std::thread::spawn(move || serve(&there)),
        };
        stranger.say(&[Message::Hello(Hello {
            version: VERSION,
            recursive: true,
            ..Hello::default()
        })]);
        assert!(matches!(stranger.hear(), Message::Hello(_)));
        stranger
    }

    fn say(&mut self, messages: &[Message]) {
        let mut bytes = Vec::new();
        for message in messages {
            message.write(&mut bytes);
        }
        self.stream.write_all(&bytes).unwrap();
    }

    fn hear(&mut self) -> Message {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes).unwrap();
            assert!(read > 0, "the node has left");
            self.decoder.buffer().extend_from_slice(&bytes[..read]);
        }
    }

    /// What the node makes of the end of the stream.
    fn leave(self) -> Result<(), CopyError> {
        drop(self.stream);
        self.node.join().unwrap()
    }

    /// The node has had enough, and says why.
    fn goes_with(mut self, why: &str) {
        let Message::Fatal(text) = self.hear() else {
            panic!("the node goes on");
        };
        assert!(text.contains(why), "{text}");
        assert!(self.leave().is_err());
    }
}

fn name(name: &str) -> Option<Name> {
    Some(Name::new(name.to_owned()).unwrap())
}

fn file(name_of_it: &str, size: u64) -> Message {
    Message::File {
        meta: META,
        size: Some(size),
        name: name(name_of_it),
    }
}

#[test]
fn a_name_that_leads_elsewhere_ends_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    for hostile in ["../out", "/etc/out", "..", "a/../../out"] {
        let mut stranger = Stranger::uploading(folder.path());
        // Made by hand, as no name like that can be written.
        let mut payload = vec![0; 24];
        payload.extend_from_slice(hostile.as_bytes());
        let mut bytes = vec![0x12];
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&payload);
        stranger.stream.write_all(&bytes).unwrap();
        stranger.goes_with("not the name of a file");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_link_that_came_first_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let (to, outside) = (folder.path().join("to"), folder.path().join("outside"));
    fs::create_dir(&to).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    let link = |name_of_it: &str, target: &Path| Message::Link {
        meta: META,
        name: name(name_of_it).unwrap(),
        target: target
            .to_owned()
            .into_os_string()
            .into_encoded_bytes()
            .into(),
    };
    let mut stranger = Stranger::uploading(&to);
    stranger.say(&[
        link("d", &outside),
        Message::Enter(META, name("d")),
        file("new", 0),
        Message::Leave,
        link("file", &outside.join("file")),
        file("file", 0),
        link(".f.sortie-part", &outside.join("file")),
        file("f", 0),
    ]);
    assert_eq!(stranger.hear(), Message::Done(0));
    assert!(matches!(stranger.hear(), Message::Failed(1, why) if why.contains("symbolic link")));
    assert!(matches!(stranger.hear(), Message::Failed(2, _)));
    assert_eq!(stranger.hear(), Message::Done(3));
    assert_eq!(stranger.hear(), Message::Want(4, None));
    assert_eq!(stranger.hear(), Message::Done(5));
    assert_eq!(stranger.hear(), Message::Want(6, None));
    for entry in [4, 6] {
        stranger.say(&[Message::Start(entry, 0), Message::End(Digest(EMPTY))]);
        assert_eq!(stranger.hear(), Message::Done(entry));
    }
    stranger.say(&[Message::Finish]);
    assert_eq!(stranger.hear(), Message::Finished);
    stranger.leave().unwrap();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_lie_about_a_digest_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut stranger = Stranger::uploading(folder.path());
    stranger.say(&[file("a", 3), file("b", 0)]);
    assert_eq!(stranger.hear(), Message::Want(0, None));
    assert_eq!(stranger.hear(), Message::Want(1, None));
    stranger.say(&[
        Message::Start(0, 0),
        Message::Data("abc".into()),
        Message::End(Digest([7; 32])),
    ]);
    assert!(matches!(stranger.hear(), Message::Failed(0, why) if why.contains("SHA-256")));
    stranger.say(&[Message::Start(1, 0), Message::End(Digest(EMPTY))]);
    assert_eq!(stranger.hear(), Message::Done(1));
    stranger.say(&[Message::Finish]);
    assert_eq!(stranger.hear(), Message::Finished);
    stranger.leave().unwrap();
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn a_lie_about_a_size_ends_the_copy_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = || Message::Data("abc".into());
    for (size, messages) in [
        (2, vec![Message::Start(0, 0), data()]),
        (
            4,
            vec![Message::Start(0, 0), data(), Message::End(Digest([0; 32]))],
        ),
        (4, vec![data()]),
        (4, vec![Message::Start(0, 2)]),
        (4, vec![Message::Start(9, 0)]),
    ] {
        let mut stranger = Stranger::uploading(folder.path());
        stranger.say(&[file("a", size)]);
        assert!(matches!(stranger.hear(), Message::Want(0, None)));
        stranger.say(&messages);
        stranger.goes_with("breaks the rules");
        assert!(!folder.path().join("a").exists());
        let _ = fs::remove_file(folder.path().join(".a.sortie-part"));
    }
}

#[test]
fn what_is_announced_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut stranger = Stranger::uploading(folder.path());
    let files: Vec<Message> = (0..=WINDOW)
        .map(|number| file(&number.to_string(), 1))
        .collect();
    stranger.say(&files);
    for _ in 0..WINDOW {
        assert!(matches!(stranger.hear(), Message::Want(..)));
    }
    stranger.goes_with("too many entries");
}

#[test]
fn a_receiver_that_answers_nonsense_is_left() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "abc").unwrap();
    symlink("a", folder.path().join("link")).unwrap();
    for answer in [
        Message::Done(0),
        Message::Want(7, None),
        Message::Finish,
        Message::Finished,
        Message::Start(0, 0),
    ] {
        let mut stranger = Stranger::downloading(&folder.path().join("a"));
        assert!(matches!(stranger.hear(), Message::File { .. }));
        stranger.say(&[answer]);
        stranger.goes_with("not asked");
    }
    // A claim to have more than there is, or something else, is answered by the whole file.
    for length in [2, 3, 4, u64::MAX] {
        let mut stranger = Stranger::downloading(&folder.path().join("a"));
        assert!(matches!(stranger.hear(), Message::File { .. }));
        stranger.say(&[Message::Want(0, Some((length, Digest([1; 32]))))]);
        assert_eq!(stranger.hear(), Message::Start(0, 0));
        assert_eq!(stranger.hear(), Message::Data("abc".into()));
    }
}

#[test]
fn the_end_of_the_stream_in_the_middle_keeps_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let mut stranger = Stranger::uploading(folder.path());
    stranger.say(&[file("a", 6)]);
    assert_eq!(stranger.hear(), Message::Want(0, None));
    stranger.say(&[Message::Start(0, 0), Message::Data("abc".into())]);
    assert!(matches!(stranger.leave(), Err(CopyError::Left)));
    assert!(!folder.path().join("a").exists());
    assert_eq!(
        fs::read(folder.path().join(".a.sortie-part")).unwrap(),
        b"abc"
    );
}
