//! Starts processes from one thread.
//!
//! A process that unpacks is killed when its parent dies, even by `kill -9`, so that nobody writes into a tree that the next
//! program to open the store removes. To the kernel that parent is the thread which started the process: one that a pool
//! ends when it has nothing to do would take a layer in the middle of its download along. So this one starts them all.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{Builder, JoinHandle};

#[derive(Debug)]
pub(super) struct Starter {
    /// `None` when dropped: the thread ends with its orders.
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

struct Order {
    command: Command,
    started: SyncSender<io::Result<Child>>,
}

impl Starter {
    pub(super) fn new() -> io::Result<Self> {
        let (orders, taken) = mpsc::channel();
        let thread = Builder::new().name("gantry-unpack".to_owned()).spawn(move || serve(&taken))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    pub(super) fn start(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts it is gone");
        let (started, start) = mpsc::sync_channel(1);
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(Order { command, started }).map_err(|_| gone())?;
        start.recv().map_err(|_| gone())?
    }
}

fn serve(orders: &Receiver<Order>) {
    for Order { mut command, started } in orders {
        // Whoever gave the order waits for the answer.
        let _heard = started.send(command.spawn());
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // It panics nowhere, and there is nothing to be done about it if it did.
            let _ended = thread.join();
        }
    }
}
