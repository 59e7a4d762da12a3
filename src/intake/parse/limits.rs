//! What a single event may hold. These limits are fixed: the table and its index rest on them.

/// Bytes of an `event_id`.
pub const EVENT_ID_BYTES: usize = 256;
/// Bytes of a `service_name`, an `event_type` and a `user_id`.
pub const NAME_BYTES: usize = 128;
/// Objects and lists that may lie in each other in a payload or a metadata, itself included.
pub const LEVELS: usize = 64;
/// Digits of a number, its exponent apart.
pub const NUMBER_DIGITS: usize = 1000;
/// How far a decimal exponent may lie from 0. `1e131071` is legal in PostgreSQL: 27 bytes stored, 131,079 characters
/// when it is read.
pub const NUMBER_EXPONENT: u32 = 1000;
