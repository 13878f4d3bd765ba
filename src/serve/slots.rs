//! Slots for POP3 connections: how many are served, how many wait, and which are refused.
//!
//! What the original's four socket settings mean here: `socketmin` slots are made at the start and always kept. When
//! they run out, `socketthreshold` more are made at a time, up to `socketmax`; idle ones above the minimum are freed.
//! With all `socketmax` in use, up to `socketbacklog` connections wait without a greeting, in order of arrival. One
//! more is refused.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};

use smol::channel::{Receiver, Sender};

use crate::lock::Mutex;

/// Read size while waiting for commands.
const READ_OCTETS: usize = 4096;

/// The buffers of a connection, made ahead.
pub struct Buffers {
    pub read: Box<[u8]>,
    pub out: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Self {
        Self { read: vec![0; READ_OCTETS].into(), out: Vec::with_capacity(READ_OCTETS) }
    }
}

/// The four socket settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub backlog: usize,
    pub max: usize,
    pub min: usize,
    pub threshold: usize,
}

/// How the slots are used now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    pub in_use: usize,
    pub waiting: usize,
    /// Since the start.
    pub refused: u64,
}

#[derive(Clone)]
pub struct Slots(Arc<Mutex<State>>);

struct State {
    limits: Limits,
    ready: Vec<Buffers>,
    in_use: usize,
    waiting: VecDeque<Sender<Slot>>,
    refused: u64,
}

/// The right to serve one connection. Dropping it gives the slot back.
pub struct Slot {
    slots: Slots,
    buffers: Option<Buffers>,
}

pub enum Admission {
    Slot(Slot),
    /// Receives the slot when it is this connection's turn. Drop it if the client goes.
    Wait(Receiver<Slot>),
    Refused,
}

impl Slots {
    pub fn new(limits: Limits) -> Self {
        let ready = (0..limits.min).map(|_| Buffers::new()).collect();
        Self(Arc::new(Mutex::new(State { limits, ready, in_use: 0, waiting: VecDeque::new(), refused: 0 })))
    }

    /// Calls `make_room` if the queue is full. True means that a connection with a slot or in the queue is about to go,
    /// so one more may join.
    pub fn admit(&self, make_room: impl FnOnce() -> bool) -> Admission {
        let mut state = self.lock();
        state.waiting.retain(|waiting| !waiting.is_closed());
        if state.waiting.is_empty()
            && let Some(buffers) = state.take()
        {
            return Admission::Slot(Slot { slots: self.clone(), buffers: Some(buffers) });
        }
        if state.waiting.len() < state.limits.backlog || make_room() {
            let (sender, receiver) = smol::channel::bounded(1);
            state.waiting.push_back(sender);
            return Admission::Wait(receiver);
        }
        state.refused += 1;
        Admission::Refused
    }

    /// Takes effect at once: slots are made or freed, and waiting connections come in if there is room. Open sessions
    /// go on.
    pub fn set_limits(&self, limits: Limits) {
        {
            let mut state = self.lock();
            state.limits = limits;
            while state.made() < limits.min {
                state.ready.push(Buffers::new());
            }
            while state.made() > limits.min && state.ready.pop().is_some() {}
        }
        self.serve_waiting();
    }

    pub fn occupancy(&self) -> Occupancy {
        let mut state = self.lock();
        state.waiting.retain(|waiting| !waiting.is_closed());
        Occupancy { in_use: state.in_use, waiting: state.waiting.len(), refused: state.refused }
    }

    fn give_back(&self, buffers: Buffers) {
        {
            let mut state = self.lock();
            state.in_use -= 1;
            if state.made() < state.limits.max
                && (state.made() < state.limits.min || !state.waiting.is_empty())
            {
                state.ready.push(buffers);
            }
        }
        self.serve_waiting();
    }

    /// Hands free slots to waiting connections, first come, first served.
    fn serve_waiting(&self) {
        loop {
            let mut state = self.lock();
            if state.waiting.is_empty() {
                return;
            }
            let Some(buffers) = state.take() else { return };
            let next = state.waiting.pop_front().expect("somebody waits");
            drop(state);
            let slot = Slot { slots: self.clone(), buffers: Some(buffers) };
            // If the client has gone, the slot is dropped here and comes back for the next.
            let _ = next.try_send(slot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn made(&self) -> usize {
        self.ready.len() + self.in_use
    }

    /// Takes a ready slot. If they have run out, makes more, up to the maximum.
    fn take(&mut self) -> Option<Buffers> {
        if self.in_use >= self.limits.max {
            return None;
        }
        if self.ready.is_empty() {
            let more = self.limits.threshold.max(1).min(self.limits.max.saturating_sub(self.made()));
            self.ready.extend((0..more).map(|_| Buffers::new()));
        }
        let buffers = self.ready.pop()?;
        self.in_use += 1;
        Some(buffers)
    }
}

impl Slot {
    /// The buffers, for as long as the slot is used.
    pub fn take_buffers(&mut self) -> Buffers {
        self.buffers.take().unwrap_or_else(Buffers::new)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.give_back(self.buffers.take().unwrap_or_else(Buffers::new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { backlog: 2, max: 5, min: 2, threshold: 2 };

    fn slot(slots: &Slots) -> Slot {
        match slots.admit(|| false) {
            Admission::Slot(slot) => slot,
            _ => panic!("there is no slot"),
        }
    }

    fn made(slots: &Slots) -> usize {
        slots.lock().made()
    }

    #[test]
    fn slots_are_made_by_the_threshold_and_never_more_than_the_maximum() {
        let slots = Slots::new(LIMITS);
        let mut held = Vec::new();
        for expected in [2, 2, 4, 4, 5] {
            held.push(slot(&slots));
            assert_eq!(made(&slots), expected);
        }
        held.clear();
        assert_eq!(made(&slots), LIMITS.min);
    }

    #[test]
    fn past_the_maximum_the_backlog_waits_in_order_and_the_rest_is_refused() {
        let slots = Slots::new(LIMITS);
        let mut held: Vec<Slot> = (0..5).map(|_| slot(&slots)).collect();
        let waiting: Vec<Receiver<Slot>> = (0..2)
            .map(|_| match slots.admit(|| false) {
                Admission::Wait(receiver) => receiver,
                _ => panic!("nobody waits"),
            })
            .collect();
        assert!(matches!(slots.admit(|| false), Admission::Refused));
        assert_eq!(slots.occupancy(), Occupancy { in_use: 5, waiting: 2, refused: 1 });
        held.pop();
        assert!(waiting[1].try_recv().is_err());
        assert!(waiting[0].try_recv().is_ok());
        assert!(waiting[1].try_recv().is_ok(), "the slot that came back goes to the next");
    }

    #[test]
    fn one_more_may_wait_if_room_is_made() {
        let slots = Slots::new(LIMITS);
        let mut held: Vec<Slot> = (0..5).map(|_| slot(&slots)).collect();
        let line: Vec<Admission> = (0..2).map(|_| slots.admit(|| panic!("the line is not full"))).collect();
        assert!(matches!(slots.admit(|| false), Admission::Refused));
        let Admission::Wait(newcomer) = slots.admit(|| true) else { panic!("nobody waits") };
        drop(line);
        held.pop();
        assert!(newcomer.try_recv().is_ok());
    }

    #[test]
    fn a_client_that_stopped_waiting_is_skipped() {
        let slots = Slots::new(LIMITS);
        let mut held: Vec<Slot> = (0..5).map(|_| slot(&slots)).collect();
        let Admission::Wait(first) = slots.admit(|| false) else { panic!("nobody waits") };
        let Admission::Wait(second) = slots.admit(|| false) else { panic!("nobody waits") };
        drop(first);
        held.pop();
        assert!(second.try_recv().is_ok());
    }

    #[test]
    fn new_limits_hold_at_once() {
        let slots = Slots::new(LIMITS);
        let held: Vec<Slot> = (0..5).map(|_| slot(&slots)).collect();
        let Admission::Wait(waiting) = slots.admit(|| false) else { panic!("nobody waits") };
        slots.set_limits(Limits { max: 6, ..LIMITS });
        assert!(waiting.try_recv().is_ok());
        slots.set_limits(Limits { backlog: 0, max: 1, min: 1, threshold: 0 });
        assert!(matches!(slots.admit(|| false), Admission::Refused));
        drop(held);
        assert_eq!(made(&slots), 1);
    }
}
