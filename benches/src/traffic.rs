//! The traffic that goes through tunnels, both ends of it: echoes, bulk, offers to slow readers.
//!
//! Plain threads and blocking sockets, so that nothing but the kernel stands between the clock and
//! the tunnel. One port serves everything: what is measured beside each other then goes through one
//! forward, and with us through one session.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{self, Digest, SHA256};

/// What bulk is written in.
const BLOCK: usize = 64 * 1024;
/// The longest that a read or a write may wait.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a slow reader takes, in bytes a second.
pub(crate) const SLOW: f64 = 1e6;
/// Exchanges of each connection of a crowd, and the bytes of one.
const CROWD_EXCHANGES: usize = 20;
const CROWD_BYTES: usize = 1024;
/// The first byte of a block of bulk: whether another comes.
const MORE: u8 = 0;
const LAST: u8 = 1;

/// Which way bulk goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What a connection asks for in its first bytes.
#[derive(Clone, Copy)]
enum Request {
    /// Every byte back.
    Echo,
    /// Taking blocks until the last, and telling how many bytes they were.
    Sink,
    /// Blocks for this many milliseconds.
    Source { millis: u64 },
    /// This many bytes, and their digest.
    Offer { bytes: u64 },
    /// Taking this many bytes, slowly for the first milliseconds, and telling their digest.
    Take { bytes: u64, slow_millis: u64 },
}

/// Bulk that went through, from the first byte's departure to the last one's arrival.
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Connections that were open at the same time.
pub(crate) struct Crowd {
    pub(crate) failed: usize,
    pub(crate) seconds: f64,
}

impl Flow {
    /// In MB/s.
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }
}

impl Request {
    fn encode(self) -> Vec<u8> {
        let (kind, first, second) = match self {
            Self::Echo => (b'e', 0, 0),
            Self::Sink => (b'k', 0, 0),
            Self::Source { millis } => (b's', millis, 0),
            Self::Offer { bytes } => (b'o', bytes, 0),
            Self::Take { bytes, slow_millis } => (b't', bytes, slow_millis),
        };
        let mut encoded = vec![kind];
        encoded.extend_from_slice(&u64::to_le_bytes(first));
        encoded.extend_from_slice(&u64::to_le_bytes(second));
        encoded
    }

    fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let (first, second) = (read_number(stream)?, read_number(stream)?);
        match kind {
            [b'e'] => Ok(Self::Echo),
            [b'k'] => Ok(Self::Sink),
            [b's'] => Ok(Self::Source { millis: first }),
            [b'o'] => Ok(Self::Offer { bytes: first }),
            [b't'] => Ok(Self::Take {
                bytes: first,
                slow_millis: second,
            }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Serves what is asked for on a port of this machine, as long as the process lives.
pub(crate) fn serve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            // Whoever asks sees a failure as an early end.
            thread::spawn(move || answer(stream));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    prepare(&stream)?;
    match Request::read(&mut stream)? {
        Request::Echo => {
            let mut buffer = vec![0; BLOCK];
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                stream.write_all(buffer.get(..count).unwrap_or_default())?;
            }
        }
        Request::Sink => {
            let bytes = take_blocks(&mut stream)?;
            stream.write_all(&bytes.to_le_bytes())?;
        }
        Request::Source { millis } => {
            give_blocks(&mut stream, Duration::from_millis(millis))?;
        }
        Request::Offer { bytes } => {
            let digest = offer(&mut stream, bytes)?;
            stream.write_all(digest.as_ref())?;
        }
        Request::Take { bytes, slow_millis } => {
            let digest = take(&mut stream, bytes, Duration::from_millis(slow_millis))?;
            stream.write_all(digest.as_ref())?;
        }
    }
    // The other end closes first: not every tunnel knows a half-closed connection.
    stream.read(&mut [0]).map(drop)
}

/// Round trips of one byte, in µs. A tenth as many come before them to warm up.
pub(crate) fn echoes(port: u16, count: usize, pause: Duration) -> Result<Vec<f64>> {
    echoes_within(port, count, pause, Duration::MAX)
}

/// The same; no further one begins when the time is over.
pub(crate) fn echoes_within(
    port: u16,
    count: usize,
    pause: Duration,
    time: Duration,
) -> Result<Vec<f64>> {
    let mut stream = ask(port, Request::Echo)?;
    let mut times = Vec::with_capacity(count);
    let warm = count / 10;
    let begun = Instant::now();
    for number in 0..count + warm {
        if begun.elapsed() > time {
            break;
        }
        let sent = Instant::now();
        exchange(&mut stream, b"x")?;
        if number >= warm {
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        thread::sleep(pause);
    }
    Ok(times)
}

/// From connecting to the first byte back, in µs, one connection after the other.
pub(crate) fn openings(port: u16, count: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    let mut request = Request::Echo.encode();
    request.push(b'x');
    for _ in 0..count {
        let begun = Instant::now();
        let mut stream = connect(port)?;
        stream.write_all(&request)?;
        stream.read_exact(&mut [0])?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Blocks as fast as they go, for about `time`.
pub(crate) fn bulk(port: u16, direction: Direction, time: Duration) -> Result<Flow> {
    let millis = u64::try_from(time.as_millis())?;
    let request = match direction {
        Direction::Up => Request::Sink,
        Direction::Down => Request::Source { millis },
    };
    let mut stream = ask(port, request)?;
    let begun = Instant::now();
    let bytes = match direction {
        Direction::Up => {
            let bytes = give_blocks(&mut stream, time)?;
            let arrived = read_number(&mut stream)?;
            ensure!(arrived == bytes, "of {bytes} bytes {arrived} arrived");
            bytes
        }
        Direction::Down => take_blocks(&mut stream)?,
    };
    Ok(Flow {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// So many connections, all of them open before the first is used in earnest.
pub(crate) fn crowd(port: u16, count: usize) -> Crowd {
    let (together, begun) = (Barrier::new(count), Instant::now());
    let failed = thread::scope(|scope| {
        let members = (0..count).map(|_| scope.spawn(|| member(port, &together)));
        let members: Vec<_> = members.collect();
        let ended = members.into_iter().map(thread::ScopedJoinHandle::join);
        ended.filter(|ended| !matches!(ended, Ok(Ok(())))).count()
    });
    Crowd {
        failed,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

fn member(port: u16, together: &Barrier) -> Result<()> {
    let bytes = vec![b'm'; CROWD_BYTES];
    let opened = ask(port, Request::Echo).and_then(|mut stream| {
        exchange(&mut stream, &bytes)?;
        Ok(stream)
    });
    together.wait();
    let mut stream = opened?;
    for _ in 0..CROWD_EXCHANGES {
        exchange(&mut stream, &bytes)?;
    }
    Ok(())
}

/// Lets the far side offer `bytes` of which this side takes little for a while, then all of them
/// fast. Gives back how fast that went.
pub(crate) fn take_slowly(port: u16, bytes: u64, slow: Duration) -> Result<Flow> {
    let mut stream = ask(port, Request::Offer { bytes })?;
    let begun = Instant::now();
    let taken = take(&mut stream, bytes, slow)?;
    let flow = rest(bytes, slow, begun.elapsed());
    let mut offered = [0; 32];
    stream.read_exact(&mut offered)?;
    same(&offered, taken.as_ref())?;
    Ok(flow)
}

/// The same the other way round: the far side takes slowly what is offered here.
pub(crate) fn offer_to_slow(port: u16, bytes: u64, slow: Duration) -> Result<Flow> {
    let slow_millis = u64::try_from(slow.as_millis())?;
    let mut stream = ask(port, Request::Take { bytes, slow_millis })?;
    let begun = Instant::now();
    let offered = offer(&mut stream, bytes)?;
    let mut taken = [0; 32];
    stream.read_exact(&mut taken)?;
    same(&taken, offered.as_ref())?;
    Ok(rest(bytes, slow, begun.elapsed()))
}

/// What was left when the slow time was over, and the time that it took.
fn rest(bytes: u64, slow: Duration, all: Duration) -> Flow {
    let taken_slowly = (slow.as_secs_f64() * SLOW) as u64;
    Flow {
        bytes: bytes.saturating_sub(taken_slowly),
        seconds: all.saturating_sub(slow).as_secs_f64(),
    }
}

/// Fails unless both digests are the same.
pub(crate) fn same(one: &[u8], other: &[u8]) -> Result<()> {
    ensure!(one == other, "what arrived is not what was sent");
    Ok(())
}

/// Writes `bytes` of which no two blocks are the same. Gives back their digest.
pub(crate) fn offer(to: &mut impl Write, bytes: u64) -> io::Result<Digest> {
    let (mut block, mut digest) = (block(), digest::Context::new(&SHA256));
    let mut left = bytes;
    while left > 0 {
        if let Some(head) = block.first_chunk_mut() {
            *head = left.to_le_bytes();
        }
        let count = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        let part = block.get(..count).unwrap_or_default();
        to.write_all(part)?;
        digest.update(part);
        left -= count as u64;
    }
    Ok(digest.finish())
}

/// Reads `bytes`, no more than [`SLOW`] until `slow` is over. Gives back their digest.
pub(crate) fn take(from: &mut impl Read, bytes: u64, slow: Duration) -> io::Result<Digest> {
    let (mut buffer, mut digest) = (vec![0; BLOCK], digest::Context::new(&SHA256));
    let (begun, mut taken) = (Instant::now(), 0_u64);
    while taken < bytes {
        // What comes behind them is the caller's.
        let room = usize::try_from(bytes - taken).unwrap_or(BLOCK).min(BLOCK);
        let count = from.read(buffer.get_mut(..room).unwrap_or_default())?;
        let part = buffer.get(..count).unwrap_or_default();
        if part.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        digest.update(part);
        taken += count as u64;
        let due = Duration::from_secs_f64(taken as f64 / SLOW).min(slow);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(digest.finish())
}

fn give_blocks(stream: &mut TcpStream, time: Duration) -> io::Result<u64> {
    let mut block = block();
    let (begun, mut bytes, mut is_last) = (Instant::now(), 0, false);
    while !is_last {
        is_last = begun.elapsed() >= time;
        if let Some(first) = block.first_mut() {
            *first = if is_last { LAST } else { MORE };
        }
        stream.write_all(&block)?;
        bytes += block.len() as u64;
    }
    Ok(bytes)
}

fn take_blocks(stream: &mut TcpStream) -> io::Result<u64> {
    let (mut block, mut bytes) = (vec![0; BLOCK], 0);
    loop {
        stream.read_exact(&mut block)?;
        bytes += block.len() as u64;
        if block.first() == Some(&LAST) {
            return Ok(bytes);
        }
    }
}

/// Bytes that do not compress.
pub(crate) fn block() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    bytes.take(BLOCK / 8).flatten().collect()
}

fn ask(port: u16, request: Request) -> Result<TcpStream> {
    let mut stream = connect(port)?;
    stream.write_all(&request.encode())?;
    Ok(stream)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let stream = stream.with_context(|| format!("cannot connect to port {port}"))?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    ensure!(back == bytes, "the echo is another");
    Ok(())
}

fn read_number(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn every_kind_of_traffic_arrives_whole() {
        let port = serve().unwrap();
        assert_eq!(echoes(port, 10, Duration::ZERO).unwrap().len(), 10);
        assert_eq!(openings(port, 3).unwrap().len(), 3);
        for direction in [Direction::Up, Direction::Down] {
            assert!(bulk(port, direction, SHORT).unwrap().bytes >= BLOCK as u64);
        }
        assert_eq!(crowd(port, 20).failed, 0);
        take_slowly(port, 300_001, SHORT).unwrap();
        offer_to_slow(port, 300_001, SHORT).unwrap();
    }

    #[test]
    fn a_crowd_without_a_server_fails_as_a_whole() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        assert_eq!(crowd(port, 3).failed, 3);
    }

    #[test]
    fn a_slow_reader_keeps_its_pace() {
        let bytes = vec![7; 300_000];
        let begun = Instant::now();
        let slow = Duration::from_millis(200);
        let digest = take(&mut bytes.as_slice(), 300_000, slow).unwrap();
        assert!(begun.elapsed() >= slow);
        assert_eq!(digest.as_ref(), digest::digest(&SHA256, &bytes).as_ref());
        assert!(same(digest.as_ref(), &[0; 32]).is_err());
    }
}
