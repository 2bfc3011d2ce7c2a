//! A relay between Tally and a node that cuts connections where it hurts, delivers the bytes of a
//! dead one late, or those of each connection in a time of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::pause;
use crate::random::Random;

/// Passes bytes on, in both directions, for every connection made to it.
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    node: SocketAddr,
    /// Whether whatever passes takes a time, which nobody knows before.
    is_slow: bool,
    pairs: Mutex<Vec<Arc<Pair>>>,
    ended: AtomicBool,
}

/// A connection from Tally and the one to the node that it goes on with.
struct Pair {
    tally: TcpStream,
    node: TcpStream,
    is_slow: bool,
    orders: Mutex<Orders>,
}

/// What a connection's bytes meet.
#[derive(Default)]
struct Orders {
    /// So many bytes more towards the node, then both ends are closed.
    request_bytes: Option<usize>,
    /// The same towards Tally.
    reply_bytes: Option<usize>,
    /// What goes towards the node waits here.
    held: Option<Vec<u8>>,
    /// It does from the first bytes on that have this among them.
    held_from: Option<&'static [u8]>,
}

/// Connections whose requests are held back.
pub(crate) struct Held(Vec<Arc<Pair>>);

impl Relay {
    /// Listens on a free port, and goes on to `node` for each connection.
    pub(crate) fn start(node: SocketAddr) -> Self {
        Self::listen(node, false)
    }

    /// The same; what is sent on one connection may come long before what is sent on another.
    pub(crate) fn start_slow(node: SocketAddr) -> Self {
        Self::listen(node, true)
    }

    fn listen(node: SocketAddr, is_slow: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            node,
            is_slow,
            pairs: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&state);
        thread::spawn(move || for_thread.accept(&listener));
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection after so many more bytes towards the node.
    pub(crate) fn cut_requests(&self, bytes: usize) {
        self.order(|orders| orders.request_bytes = Some(bytes));
    }

    /// Closes every connection after so many more bytes towards Tally.
    pub(crate) fn cut_replies(&self, bytes: usize) {
        self.order(|orders| orders.reply_bytes = Some(bytes));
    }

    fn order(&self, order: impl Fn(&mut Orders)) {
        for pair in self.state.pairs.lock().unwrap().iter() {
            order(&mut pair.orders.lock().unwrap());
        }
    }

    /// From now on nothing of the connections there are reaches the node.
    pub(crate) fn hold(&self) -> Held {
        let pairs = std::mem::take(&mut *self.state.pairs.lock().unwrap());
        for pair in &pairs {
            pair.orders.lock().unwrap().held.get_or_insert_default();
        }
        Held(pairs)
    }

    /// Nothing of a connection reaches the node any more once something with `part` is sent on it.
    pub(crate) fn hold_from(&self, part: &'static [u8]) -> Held {
        let pairs = std::mem::take(&mut *self.state.pairs.lock().unwrap());
        for pair in &pairs {
            pair.orders.lock().unwrap().held_from = Some(part);
        }
        Held(pairs)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // Wakes who accepts.
        TcpStream::connect(self.address).ok();
        for pair in self.state.pairs.lock().unwrap().iter() {
            pair.close();
        }
    }
}

impl Held {
    /// How many bytes are held back.
    pub(crate) fn bytes(&self) -> usize {
        let held = |pair: &Arc<Pair>| {
            pair.orders
                .lock()
                .unwrap()
                .held
                .as_ref()
                .map_or(0, Vec::len)
        };
        self.0.iter().map(held).sum()
    }

    /// Whether this is among what is held back.
    pub(crate) fn has(&self, part: &[u8]) -> bool {
        self.0.iter().any(|pair| {
            let orders = pair.orders.lock().unwrap();
            let held = orders.held.as_deref().unwrap_or_default();
            memchr::memmem::find(held, part).is_some()
        })
    }

    /// For Tally the connections are lost; for the node they are open.
    pub(crate) fn lose(&self) {
        for pair in &self.0 {
            pair.tally.shutdown(Shutdown::Both).ok();
        }
    }

    /// The node gets what was held back, and Tally none of its replies.
    pub(crate) fn deliver_unheard(self) {
        for pair in &self.0 {
            pair.orders.lock().unwrap().reply_bytes = Some(0);
        }
        self.deliver();
    }

    /// The node gets what was held back, and what comes from now on.
    pub(crate) fn go_on(self) {
        for pair in &self.0 {
            let mut orders = pair.orders.lock().unwrap();
            let held = orders.held.take();
            orders.held_from = None;
            let mut node = &pair.node;
            node.write_all(&held.unwrap_or_default()).unwrap();
        }
    }

    /// The node gets what was held back, and time to execute it.
    pub(crate) fn deliver(self) {
        for pair in &self.0 {
            let held = pair.orders.lock().unwrap().held.take();
            let mut node = &pair.node;
            // The node may have closed it.
            node.write_all(&held.unwrap_or_default()).ok();
        }
        pause(Duration::from_millis(50));
        for pair in &self.0 {
            pair.close();
        }
    }
}

impl State {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for tally in listener.incoming() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // Tally's connection ends at once when the node takes none.
            if let Ok(tally) = tally
                && let Ok(node) = TcpStream::connect(self.node)
            {
                self.join(tally, node).ok();
            }
        }
    }

    fn join(self: &Arc<Self>, tally: TcpStream, node: TcpStream) -> io::Result<()> {
        tally.set_nodelay(true)?;
        node.set_nodelay(true)?;
        let pair = Arc::new(Pair {
            tally,
            node,
            is_slow: self.is_slow,
            orders: Mutex::default(),
        });
        self.pairs.lock().unwrap().push(Arc::clone(&pair));
        let requests = Arc::clone(&pair);
        thread::spawn(move || requests.pass_requests().ok());
        let state = Arc::clone(self);
        thread::spawn(move || {
            pair.pass_replies().ok();
            state
                .pairs
                .lock()
                .unwrap()
                .retain(|other| !Arc::ptr_eq(other, &pair));
        });
        Ok(())
    }
}

impl Pair {
    fn pass_requests(&self) -> io::Result<()> {
        let (mut tally, mut node) = (&self.tally, &self.node);
        let (mut buffer, mut random) = ([0; 16 << 10], self.random());
        loop {
            let count = tally.read(&mut buffer).unwrap_or(0);
            self.dawdle(&mut random);
            let mut orders = self.orders.lock().unwrap();
            let has = |part| memchr::memmem::find(&buffer[..count], part).is_some();
            if orders.held_from.is_some_and(has) {
                orders.held.get_or_insert_default();
            }
            if let Some(held) = &mut orders.held {
                held.extend_from_slice(&buffer[..count]);
                if count == 0 {
                    // The node does not learn that it is lost.
                    return Ok(());
                }
                continue;
            }
            let (allowed, ends) = spend(&mut orders.request_bytes, count);
            drop(orders);
            node.write_all(&buffer[..allowed])?;
            if ends {
                self.close();
                return Ok(());
            }
        }
    }

    fn pass_replies(&self) -> io::Result<()> {
        let (mut tally, mut node) = (&self.tally, &self.node);
        let (mut buffer, mut random) = ([0; 16 << 10], self.random());
        loop {
            let count = node.read(&mut buffer).unwrap_or(0);
            self.dawdle(&mut random);
            let (allowed, ends) = spend(&mut self.orders.lock().unwrap().reply_bytes, count);
            let written = tally.write_all(&buffer[..allowed]);
            let is_held = self.orders.lock().unwrap().held.is_some();
            if (ends || written.is_err()) && !is_held {
                self.close();
                return Ok(());
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Another one for each connection.
    fn random(&self) -> Random {
        let port = self.node.local_addr().map_or(0, |address| address.port());
        Random::new(port.into())
    }

    fn dawdle(&self, random: &mut Random) {
        if self.is_slow && random.one_in(2) {
            pause(Duration::from_micros(random.next() % 4000));
        }
    }

    fn close(&self) {
        self.tally.shutdown(Shutdown::Both).ok();
        self.node.shutdown(Shutdown::Both).ok();
    }
}

/// How many of `count` bytes may pass, and whether the connection ends with them.
fn spend(left: &mut Option<usize>, count: usize) -> (usize, bool) {
    let allowed = left.map_or(count, |left| left.min(count));
    if let Some(left) = left {
        *left -= allowed;
    }
    (allowed, count == 0 || *left == Some(0))
}
