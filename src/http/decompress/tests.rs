use proptest::prelude::*;

use super::*;
use crate::{http::memory::Budget, settings::Mebibytes};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).unwrap()
}

fn decode(coding: Coding, limit: u64, piece: usize, stream: &[u8]) -> Result<Vec<u8>, Fault> {
    let permit = Budget::new(Mebibytes(64)).take(0).unwrap();
    let mut decoder = Decoder::new(coding, Output::new(limit, permit));
    for piece in stream.chunks(piece) {
        decoder.feed(piece)?;
    }
    Ok(decoder.finish()?.into_parts().0.to_vec())
}

type Encode = fn(&[u8]) -> Vec<u8>;

const CODINGS: [(Coding, Encode); 2] = [(Coding::Gzip, gzip), (Coding::Zstd, zstd)];

proptest! {
    #[test]
    fn what_was_compressed_comes_back(text in proptest::collection::vec(0u8..4, 0..3000), piece in 1usize..100) {
        for (coding, encode) in CODINGS {
            prop_assert_eq!(decode(coding, 3000, piece, &encode(&text)), Ok(text.clone()));
        }
    }

    #[test]
    fn stream_that_is_cut_or_goes_on_is_broken(text in "[a-z]{0,300}", cut in 0.0..1.0, garbage in "[a-z]{1,30}") {
        for (coding, encode) in CODINGS {
            let stream = encode(text.as_bytes());
            let cut = &stream[..(stream.len() as f64 * cut) as usize];
            prop_assert_eq!(decode(coding, 3000, 7, cut), Err(Fault::Broken));
            let longer = [&stream, garbage.as_bytes()].concat();
            prop_assert_eq!(decode(coding, 3000, 7, &longer), Err(Fault::Broken));
        }
    }
}

#[test]
fn stream_of_several_members_is_one_body() {
    for (coding, encode) in CODINGS {
        let stream = [encode(b"one"), encode(b""), encode(b"two")].concat();
        for piece in 1..stream.len() {
            assert_eq!(decode(coding, 6, piece, &stream), Ok(b"onetwo".to_vec()), "{coding:?}");
        }
        assert_eq!(decode(coding, 6, 5, &stream[..stream.len() - 1]), Err(Fault::Broken), "{coding:?}");
    }
}

#[test]
fn limit_is_exact() {
    let text = vec![b' '; 300_000];
    for (coding, encode) in CODINGS {
        let stream = encode(&text);
        for piece in [1, 100, stream.len()] {
            assert_eq!(decode(coding, 300_000, piece, &stream).map(|body| body.len()), Ok(300_000));
            assert_eq!(decode(coding, 299_999, piece, &stream), Err(Fault::TooLarge), "{coding:?}");
        }
    }
}

#[test]
fn bomb_stops_at_the_limit_and_its_permit() {
    let text = vec![b' '; 200 << 20];
    for (coding, encode) in CODINGS {
        let bomb = encode(&text);
        let mut decoder = Decoder::new(coding, Output::new(8 << 20, Budget::new(Mebibytes(64)).take(0).unwrap()));
        assert_eq!(decoder.feed(&bomb), Err(Fault::TooLarge));
        assert!(decoder.made() <= (8 << 20) + 1, "{coding:?} made {}", decoder.made());

        let budget = Budget::new(Mebibytes(16));
        let _others = budget.take(12 << 20).unwrap();
        let mut decoder = Decoder::new(coding, Output::new(64 << 20, budget.take(0).unwrap()));
        assert_eq!(decoder.feed(&bomb), Err(Fault::NoMemory));
        assert!(decoder.made() <= 2 << 20, "{coding:?} made {}", decoder.made());
    }
}

#[test]
fn zstd_window_over_8_mib_is_refused() {
    let stream = |log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"{}").unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(decode(Coding::Zstd, 100, 100, &stream(23)), Ok(b"{}".to_vec()));
    assert_eq!(decode(Coding::Zstd, 100, 100, &stream(24)), Err(Fault::Broken));
}
