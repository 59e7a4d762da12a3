//! A connection on loan. It goes back to its pool only on its user's word that nothing is open on it.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use deadpool_postgres::{ClientWrapper, Object};

/// A connection in use. Dropped without [`Connection::release`] it is closed.
#[derive(Debug)]
pub struct Connection {
    object: Option<Object>,
    /// The generation that it was taken in.
    generation: u64,
    /// The pools' generation of now: when it is a later one, this connection was given up meanwhile.
    current: Arc<AtomicU64>,
}

impl Connection {
    pub(super) fn new(object: Object, generation: u64, current: Arc<AtomicU64>) -> Self {
        Self { object: Some(object), generation, current }
    }

    /// Returns the driver's client, for functions that serve transactions too.
    pub fn client(&self) -> &tokio_postgres::Client {
        self
    }

    /// Gives the connection back: nothing is open on it.
    pub fn release(mut self) {
        if self.generation == self.current.load(Relaxed) {
            drop(self.object.take());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.object.as_ref().expect("the object leaves only when the connection ends")
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        self.object.as_mut().expect("the object leaves only when the connection ends")
    }
}
