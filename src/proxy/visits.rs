//! The connections of HTTP clients to each of a thread's addresses, so that the clients of an address that is about to move
//! to another node can be asked to come back on another connection before it does. What becomes of connections in general
//! when a worker ends is in [`super::thread`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::inquiry::LeaveStage;

/// The addresses that clients of a thread have come to: no more than the machine has.
#[derive(Debug, Default)]
pub struct Doors {
    by_address: RefCell<BTreeMap<IpAddr, Rc<Door>>>,
    leaving: RefCell<Vec<IpAddr>>,
    stage: Cell<Option<LeaveStage>>,
    /// Goes up with each order, so that who waits for an earlier one stops.
    order: Cell<u64>,
    changed: Rc<Notify>,
}

/// An address, and who is connected to it.
#[derive(Debug)]
struct Door {
    stage: Cell<Option<LeaveStage>>,
    /// Goes up when its clients are asked to leave.
    turn: Cell<u32>,
    open: Cell<usize>,
    /// Those that were there before the clients were asked to leave.
    earlier: Cell<usize>,
    changed: Rc<Notify>,
}

/// A connection of HTTP; over when it is dropped, or has become a tunnel.
#[derive(Debug)]
pub struct Visit {
    door: Rc<Door>,
    turn: u32,
    is_over: Cell<bool>,
}

impl Doors {
    /// A client has come.
    pub fn visit(&self, address: IpAddr) -> Rc<Visit> {
        let mut doors = self.by_address.borrow_mut();
        let door = doors.entry(address).or_insert_with(|| {
            let is_left = self.leaving.borrow().contains(&address);
            Rc::new(Door {
                stage: Cell::new(self.stage.get().filter(|_| is_left)),
                turn: Cell::new(0),
                open: Cell::new(0),
                earlier: Cell::new(0),
                changed: Rc::clone(&self.changed),
            })
        });
        door.open.set(door.open.get() + 1);
        Rc::new(Visit { door: Rc::clone(door), turn: door.turn.get(), is_over: Cell::new(false) })
    }

    /// Asks the clients of these addresses, and of no others, to leave. The caller wakes them. None are asked where there
    /// are no addresses: then all may stay that have not been told yet. Gives what [`Doors::left`] takes.
    pub fn ask_to_leave(&self, addresses: Vec<IpAddr>, stage: LeaveStage) -> u64 {
        for (address, door) in &*self.by_address.borrow() {
            let now = addresses.contains(address).then_some(stage);
            if now.is_some() && door.stage.get().is_none() {
                door.turn.set(door.turn.get().wrapping_add(1));
                door.earlier.set(door.open.get());
            }
            door.stage.set(now);
        }
        self.stage.set(Some(stage).filter(|_| !addresses.is_empty()));
        self.leaving.replace(addresses);
        self.order.set(self.order.get() + 1);
        self.changed.notify_waiters();
        self.order.get()
    }

    /// Waits until those have left that the stage of an order waits for, or there is another order.
    pub async fn left(&self, order: u64) {
        loop {
            let changed = self.changed.notified();
            if self.is_left() || self.order.get() != order {
                return;
            }
            changed.await;
        }
    }

    fn is_left(&self) -> bool {
        self.by_address.borrow().values().all(|door| door.is_left())
    }
}

impl Door {
    fn is_left(&self) -> bool {
        match self.stage.get() {
            None => true,
            Some(LeaveStage::Told | LeaveStage::Closed) => self.earlier.get() == 0,
            Some(LeaveStage::Last) => self.open.get() == 0,
        }
    }
}

impl Visit {
    /// Whether the client is to come back on another connection.
    pub fn is_asked_to_leave(&self) -> bool {
        self.door.stage.get().is_some()
    }

    /// Whether it was there before the clients were asked to leave.
    pub fn is_earlier(&self) -> bool {
        self.turn != self.door.turn.get()
    }

    /// Whether the connection is to be closed as soon as nothing is under way. One that came after the clients were asked
    /// to leave has its first request on its way.
    pub fn has_to_leave(&self) -> bool {
        let is_last = matches!(self.door.stage.get(), Some(LeaveStage::Closed | LeaveStage::Last));
        is_last && self.is_earlier()
    }

    /// It is no connection of HTTP any more. Nobody waits for it.
    pub fn end(&self) {
        if self.is_over.replace(true) {
            return;
        }
        let door = &self.door;
        door.open.set(door.open.get().saturating_sub(1));
        if door.stage.get().is_some() {
            if self.is_earlier() {
                door.earlier.set(door.earlier.get().saturating_sub(1));
            }
            door.changed.notify_waiters();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_done(left: impl Future<Output = ()>) -> bool {
        pin!(left).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn who_was_there_before_leaves_first_and_who_came_after_last() {
        let doors = Doors::default();
        let (earlier, other) = (doors.visit(address(1)), doors.visit(address(2)));
        let told = doors.ask_to_leave(vec![address(1)], LeaveStage::Told);
        let later = doors.visit(address(1));
        assert_eq!(
            (earlier.is_asked_to_leave(), later.is_asked_to_leave(), other.is_asked_to_leave()),
            (true, true, false)
        );
        assert_eq!((earlier.has_to_leave(), later.has_to_leave()), (false, false));
        assert!(!is_done(doors.left(told)));
        let closed = doors.ask_to_leave(vec![address(1)], LeaveStage::Closed);
        assert!(is_done(doors.left(told)), "there is another order");
        assert_eq!((earlier.has_to_leave(), later.has_to_leave(), other.has_to_leave()), (true, false, false));
        drop(earlier);
        assert!(is_done(doors.left(closed)));
        let last = doors.ask_to_leave(vec![address(1)], LeaveStage::Last);
        assert!(!is_done(doors.left(last)));
        later.end();
        drop(later);
        assert!(is_done(doors.left(last)));
    }

    #[test]
    fn all_may_stay_when_it_is_called_off_and_are_asked_anew() {
        let doors = Doors::default();
        let visit = doors.visit(address(1));
        doors.ask_to_leave(vec![address(1)], LeaveStage::Closed);
        let off = doors.ask_to_leave(Vec::new(), LeaveStage::Told);
        assert_eq!((visit.is_asked_to_leave(), visit.has_to_leave(), is_done(doors.left(off))), (false, false, true));
        let again = doors.ask_to_leave(vec![address(1)], LeaveStage::Told);
        assert!(!is_done(doors.left(again)));
        drop(visit);
        assert!(is_done(doors.left(again)));
    }

    #[test]
    fn first_client_of_an_address_that_is_about_to_move_is_told_too() {
        let doors = Doors::default();
        let order = doors.ask_to_leave(vec![address(1)], LeaveStage::Told);
        let visit = doors.visit(address(1));
        assert!(visit.is_asked_to_leave() && !doors.visit(address(2)).is_asked_to_leave());
        assert!(is_done(doors.left(order)));
    }
}
