//! The tokens of JSON: each function reads one that starts at `at` and returns where it ends.

use super::{Fault, Malformed, limits};

/// Returns where the white space at `at` ends.
#[inline]
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Reads a member's key, colon and the space round it.
#[inline]
pub(super) fn member(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<usize, Malformed> {
    let (end, _) = key(bytes, at, fault)?;
    colon(bytes, end)
}

/// Reads a string where a key must stand; returns also whether it holds escapes.
#[inline]
pub(super) fn key(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<(usize, bool), Malformed> {
    if bytes.get(at) == Some(&b'"') { string(bytes, at, fault) } else { malformed(at, "a key was expected") }
}

/// Reads the colon behind a key and the space round it.
#[inline]
pub(super) fn colon(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let at = skip_space(bytes, at);
    if bytes.get(at) == Some(&b':') { Ok(skip_space(bytes, at + 1)) } else { malformed(at, "':' was expected") }
}

/// Reads the string whose opening quote stands at `at`; returns also whether it holds escapes.
#[inline]
pub(super) fn string(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<(usize, bool), Malformed> {
    let mut escaped = false;
    let mut at = at + 1;
    loop {
        at = plain(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((at + 1, escaped)),
            Some(b'\\') => {
                escaped = true;
                at = escape(bytes, at, fault)?;
            }
            Some(_) => return malformed(at, "a control character must be escaped"),
            None => return malformed(at, "the text ends inside of a string"),
        }
    }
}

/// Returns where the bytes end that stand for themselves: at a quote, a backslash, a control character or the end.
#[inline]
fn plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    // Eight bytes at once: a byte's high bit is set where it is below 0x20, or 0 once `"` or `\` is taken out by xor.
    // The borrow can set bits above the first hit only, and the first one is what counts.
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let hits = (word.wrapping_sub(ONES * 0x20) & !word
            | quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash)
            & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(0x20..=0x21 | 0x23..=0x5b | 0x5d..) = bytes.get(at) {
        at += 1;
    }
    at
}

/// Reads the escape whose backslash stands at `at`, a surrogate pair at once.
#[cold]
fn escape(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<usize, Malformed> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(at + 2),
        Some(b'u') => {}
        _ => return malformed(at, "no such escape"),
    }
    let Some(unit) = code_unit(bytes, at) else {
        return malformed(at, "\\u must be followed by four hexadecimal digits");
    };
    match unit {
        0 => {
            fault.get_or_insert(Fault::NulCharacter);
        }
        0xd800..=0xdbff if matches!(code_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) => return Ok(at + 12),
        0xd800..=0xdfff => {
            fault.get_or_insert(Fault::LoneSurrogate);
        }
        _ => {}
    }
    Ok(at + 6)
}

/// Returns the UTF-16 code unit of the `\uXXXX` at `at`, if one stands there.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else {
        return None;
    };
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// Appends to `into` what the inside of a string stands for. Its escapes must have been read before. Half of a surrogate
/// pair becomes the three bytes that UTF-8 would have for it, so that different strings stay different.
pub(in super::super) fn unescape(quoted: &str, into: &mut Vec<u8>) {
    let bytes = quoted.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = plain(bytes, at);
        into.extend_from_slice(&bytes[at..end]);
        let Some(letter) = bytes.get(end + 1) else {
            return;
        };
        at = end + 2;
        match letter {
            b'b' => into.push(0x08),
            b'f' => into.push(0x0c),
            b'n' => into.push(b'\n'),
            b'r' => into.push(b'\r'),
            b't' => into.push(b'\t'),
            b'u' => {
                let unit = code_unit(bytes, end).unwrap_or_default();
                at = end + 6;
                let low = code_unit(bytes, at).filter(|low| matches!(low, 0xdc00..=0xdfff));
                let code = match (unit, low) {
                    (0xd800..=0xdbff, Some(low)) => {
                        at += 6;
                        0x10000 + (u32::from(unit & 0x3ff) << 10 | u32::from(low & 0x3ff))
                    }
                    _ => u32::from(unit),
                };
                push_code(code, into);
            }
            other => into.push(*other),
        }
    }
}

fn push_code(code: u32, into: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(char) => into.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        None => into.extend([0xe0 | (code >> 12) as u8, 0x80 | (code >> 6 & 0x3f) as u8, 0x80 | (code & 0x3f) as u8]),
    }
}

/// Reads a number, `true`, `false` or `null`.
#[inline]
pub(super) fn scalar(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<usize, Malformed> {
    let literal: &[u8] = match bytes.get(at) {
        Some(b'-' | b'0'..=b'9') => return number(bytes, at, fault),
        Some(b't') => b"true",
        Some(b'f') => b"false",
        Some(b'n') => b"null",
        Some(_) => return malformed(at, "a value was expected"),
        None => return malformed(at, "the text ends where a value was expected"),
    };
    if bytes[at..].starts_with(literal) { Ok(at + literal.len()) } else { malformed(at, "a value was expected") }
}

#[inline]
fn number(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<usize, Malformed> {
    let start = at + usize::from(bytes[at] == b'-');
    let mut end = digits(bytes, start)?;
    if bytes[start] == b'0' {
        end = start + 1;
    }
    let mut count = end - start;
    if bytes.get(end) == Some(&b'.') {
        let point = end;
        end = digits(bytes, point + 1)?;
        count += end - point - 1;
    }
    if count > limits::NUMBER_DIGITS {
        fault.get_or_insert(Fault::NumberOutOfRange);
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        end = exponent(bytes, end, fault)?;
    }
    Ok(end)
}

fn exponent(bytes: &[u8], at: usize, fault: &mut Option<Fault>) -> Result<usize, Malformed> {
    let start = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
    let end = digits(bytes, start)?;
    let exponent = bytes[start..end]
        .iter()
        .fold(0_u32, |exponent, digit| exponent.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    if exponent > limits::NUMBER_EXPONENT || end - start > limits::NUMBER_DIGITS {
        fault.get_or_insert(Fault::NumberOutOfRange);
    }
    Ok(end)
}

/// Reads one digit or more.
#[inline]
fn digits(bytes: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    if at == start { malformed(at, "a digit was expected") } else { Ok(at) }
}

const fn malformed<T>(at: usize, what: &'static str) -> Result<T, Malformed> {
    Err(Malformed { at, what })
}
