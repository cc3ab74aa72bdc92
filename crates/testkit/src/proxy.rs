//! A network that a test can break: a TCP forwarder whose connections can be cut, held and refused.
//! Knows nothing of what passes through it.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

/// How connections are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Bytes pass.
    Clear,
    /// Connections stay open and are accepted, and nothing passes: a laptop that sleeps.
    Held,
    /// New connections are closed at once; those that are open go on.
    Refusing,
    /// The proxy is being dropped.
    Over,
}

/// A way to a server that a test can break. Everything ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    weather: Weather,
    /// Both sockets of each connection.
    open: HashMap<u64, [TcpStream; 2]>,
    accepted: u64,
    /// After how many bytes the next connections are cut.
    budgets: VecDeque<u64>,
}

impl Proxy {
    /// Listens on a loopback port and forwards to `target`, which need not be there yet.
    ///
    /// # Errors
    /// When there is no port.
    pub fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(State {
                weather: Weather::Clear,
                open: HashMap::new(),
                accepted: 0,
                budgets: VecDeque::new(),
            }),
            changed: Condvar::new(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// The same for a server's URL, of which only host and port are read.
    ///
    /// # Errors
    /// When the URL has no numeric address.
    pub fn to_url(url: &str) -> Result<Self> {
        let authority = url.split("://").last().unwrap_or_default();
        let target = authority.trim_end_matches('/').parse();
        Self::to(target.with_context(|| format!("{url} has no address"))?)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection, losing what is under way. How many there were.
    pub fn cut(&self) -> usize {
        let mut state = self.shared.lock();
        let cut = state.open.len();
        state.open.drain().for_each(|(_, pair)| reset(&pair));
        cut
    }

    /// Breaks the connection that comes next once it has carried so many bytes, both directions
    /// counted. Several calls are for several connections, in order.
    pub fn cut_next(&self, bytes: u64) {
        self.shared.lock().budgets.push_back(bytes);
    }

    /// Lets nothing through, with every connection left open.
    pub fn hold(&self) {
        self.shared.set(Weather::Held);
    }

    /// Closes connections as soon as they come.
    pub fn refuse(&self) {
        self.shared.set(Weather::Refusing);
    }

    /// Lets everything through again.
    pub fn pass(&self) {
        self.shared.set(Weather::Clear);
    }

    /// How many connections have come so far, those refused too.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.lock().open.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Weather::Over);
        self.cut();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, weather: Weather) {
        self.lock().weather = weather;
        self.changed.notify_all();
    }

    /// Waits while everything is held. Whether the connection still exists then.
    fn may_pass(&self, number: u64) -> bool {
        let mut state = self.lock();
        while state.weather == Weather::Held && state.open.contains_key(&number) {
            let patience = Duration::from_millis(50);
            let waited = self.changed.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.open.contains_key(&number)
    }

    fn end(&self, number: u64, how: fn(&[TcpStream; 2])) {
        if let Some(pair) = self.lock().open.remove(&number) {
            how(&pair);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        let budget = {
            let mut state = shared.lock();
            match state.weather {
                Weather::Over => return,
                Weather::Refusing => {
                    state.accepted += 1;
                    continue;
                }
                Weather::Clear | Weather::Held => {}
            }
            state.accepted += 1;
            state.budgets.pop_front()
        };
        // A server that is down closes the connection, as far as the client can see.
        let _ = forward(shared, client, budget);
    }
}

fn forward(shared: &Arc<Shared>, client: TcpStream, budget: Option<u64>) -> Result<()> {
    let server = TcpStream::connect(shared.target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let number = {
        let mut state = shared.lock();
        let number = state.accepted;
        let pair = [client.try_clone()?, server.try_clone()?];
        state.open.insert(number, pair);
        number
    };
    let left = Arc::new(Mutex::new(budget));
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let (shared, left) = (Arc::clone(shared), Arc::clone(&left));
        // Ends with the connection, which ends with the proxy at the latest.
        thread::spawn(move || copy(&shared, number, from, to, &left));
    }
    Ok(())
}

/// Copies one direction until its end.
fn copy(
    shared: &Shared,
    number: u64,
    mut from: TcpStream,
    mut to: TcpStream,
    left: &Mutex<Option<u64>>,
) {
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return shared.end(number, close),
            Ok(count) => count,
            Err(_) => return shared.end(number, reset),
        };
        if !shared.may_pass(number) {
            return;
        }
        let (pass, is_spent) = spend(left, count);
        let part = buffer.get(..pass).unwrap_or_default();
        if to.write_all(part).is_err() || is_spent {
            return shared.end(number, reset);
        }
    }
}

/// How many of `count` bytes the connection may still carry, and whether it is cut after them.
fn spend(left: &Mutex<Option<u64>>, count: usize) -> (usize, bool) {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bytes) = left.as_mut() else {
        return (count, false);
    };
    let pass = usize::try_from(*bytes).unwrap_or(usize::MAX).min(count);
    *bytes -= pass as u64;
    (pass, *bytes == 0)
}

/// Breaks off: what is under way here is lost, and what an end still sends is answered by a reset.
fn reset(pair: &[TcpStream; 2]) {
    for socket in pair {
        let _ = set_socket_linger(socket, Some(Duration::ZERO));
    }
    close(pair);
}

fn close(pair: &[TcpStream; 2]) {
    for socket in pair {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_for;

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut out = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut &stream, &mut out);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        let limit = Some(crate::PATIENCE);
        stream.set_read_timeout(limit).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
        stream.write_all(text)?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, text);
        Ok(())
    }

    #[test]
    fn what_is_cut_is_gone_and_the_next_connection_passes() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut first = connect(&proxy);
        ask(&mut first, b"one").unwrap();
        assert_eq!(proxy.cut(), 1);
        assert!(ask(&mut first, b"two").is_err());
        ask(&mut connect(&proxy), b"three").unwrap();
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn the_next_connection_is_cut_after_its_bytes() {
        let proxy = Proxy::to(echo()).unwrap();
        proxy.cut_next(10);
        let mut first = connect(&proxy);
        ask(&mut first, b"four").unwrap();
        assert!(ask(&mut first, b"four").is_err());
        ask(&mut connect(&proxy), b"a whole lot more than that").unwrap();
    }

    #[test]
    fn nothing_passes_while_held_and_nothing_is_lost() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut stream = connect(&proxy);
        ask(&mut stream, b"one").unwrap();
        proxy.hold();
        stream.write_all(b"two").unwrap();
        let moment = Some(Duration::from_millis(100));
        stream.set_read_timeout(moment).unwrap();
        assert!(stream.read(&mut [0]).is_err());
        proxy.pass();
        stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"two");
    }

    #[test]
    fn refused_connections_end_at_once_and_open_ones_go_on() {
        let proxy = Proxy::to(echo()).unwrap();
        let mut first = connect(&proxy);
        ask(&mut first, b"one").unwrap();
        proxy.refuse();
        assert!(ask(&mut connect(&proxy), b"two").is_err());
        ask(&mut first, b"three").unwrap();
        drop(first);
        wait_for("the connection to be forgotten", || {
            Ok((proxy.open() == 0).then_some(()))
        })
        .unwrap();
    }
}
