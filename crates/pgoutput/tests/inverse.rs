//! Decoder and encoder are each other's inverse, and the decoder is total.

mod common;

use bytes::Bytes;
use common::{formats, messages_in_context};
use proptest::prelude::*;
use relevo_model::{Cell, RelationId, Row};
use relevo_pgoutput::{Decoder, EncodeError, Message, Protocol, decode, encode};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decoding_what_was_encoded_gives_the_message((format, in_stream, message) in messages_in_context()) {
        let frame = encode(&message).unwrap();
        prop_assert_eq!(frame.first(), Some(&message.tag()));
        prop_assert_eq!(decode(&frame, format, in_stream), Ok(message));
    }

    #[test]
    fn a_frame_cut_short_is_an_error((format, in_stream, message) in messages_in_context()) {
        let frame = encode(&message).unwrap();
        for length in 0..frame.len() {
            let error = decode(&frame.slice(..length), format, in_stream).unwrap_err();
            prop_assert!(error.offset <= length, "{}", error);
        }
    }

    #[test]
    fn a_frame_with_something_behind_it_is_an_error(
        (format, in_stream, message) in messages_in_context(),
        more in any::<u8>(),
    ) {
        let mut frame = encode(&message).unwrap().to_vec();
        frame.push(more);
        prop_assert!(decode(&frame.into(), format, in_stream).is_err());
    }

    /// One changed byte gives another message, or an error: never the same message, never a panic.
    #[test]
    fn no_byte_is_ignored(
        (format, in_stream, message) in messages_in_context(),
        place in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let mut frame = encode(&message).unwrap().to_vec();
        let place = place.index(frame.len());
        frame[place] ^= change;
        let frame = Bytes::from(frame);
        if let Ok(other) = decode(&frame, format, in_stream) {
            prop_assert_ne!(&other, &message);
            prop_assert_eq!(encode(&other).unwrap(), frame);
        }
    }

    #[test]
    fn encoding_what_was_decoded_gives_the_bytes(
        format in formats(),
        in_stream in any::<bool>(),
        tag in prop_oneof![prop::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec()), any::<u8>()],
        rest in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(b'N'), any::<u8>()], 0..48),
    ) {
        let mut frame = vec![tag];
        frame.extend(rest);
        let frame = Bytes::from(frame);
        match decode(&frame, format, in_stream) {
            Ok(message) => prop_assert_eq!(encode(&message).unwrap(), frame),
            Err(error) => {
                prop_assert_eq!(error.tag, Some(tag));
                prop_assert!(error.offset <= frame.len());
                let text = error.to_string();
                prop_assert!(text.contains("expected") && text.contains("byte "), "{}", text);
            }
        }
    }
}

#[test]
fn the_decoder_follows_the_stream_blocks() {
    let format =
        relevo_pgoutput::Format { protocol: Protocol::V4, streaming: relevo_pgoutput::Streaming::On };
    let mut decoder = Decoder::new(format);
    let start = Message::StreamStart { xid: relevo_model::Xid(7), first_segment: true };
    let inside = Message::Type {
        xid: Some(relevo_model::Xid(8)),
        type_oid: 20_000,
        namespace: "s".to_owned(),
        name: "mood".to_owned(),
    };
    let outside =
        Message::Type { xid: None, type_oid: 20_000, namespace: "s".to_owned(), name: "mood".to_owned() };
    for (message, in_stream) in
        [(&outside, false), (&start, true), (&inside, true), (&Message::StreamStop, false), (&outside, false)]
    {
        assert_eq!(&decoder.decode(&encode(message).unwrap()).unwrap(), message);
        assert_eq!(decoder.in_stream(), in_stream);
    }
    decoder.decode(&encode(&start).unwrap()).unwrap();
    assert!(decoder.decode(&Bytes::from_static(b"E.")).is_err());
    assert!(decoder.in_stream(), "an error must not change the state");
}

#[test]
fn values_are_slices_of_the_frame() {
    let value = Bytes::from(vec![b'x'; 100]);
    let message =
        Message::Insert { xid: None, relation: RelationId(1), new: Row(vec![Cell::Text(value), Cell::Null]) };
    let frame = encode(&message).unwrap();
    let format = relevo_pgoutput::Format { protocol: Protocol::V1, streaming: Default::default() };
    let Ok(Message::Insert { new, .. }) = decode(&frame, format, false) else { panic!() };
    let Cell::Text(value) = &new.0[0] else { panic!() };
    assert!(frame.as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn what_has_no_bytes_is_not_encoded() {
    let origin = Message::Origin { commit_lsn: 0, name: "a\0b".to_owned() };
    assert_eq!(encode(&origin), Err(EncodeError::Nul { field: "the origin's name" }));
    let wide = Message::Insert { xid: None, relation: RelationId(1), new: Row(vec![Cell::Null; 65_536]) };
    assert!(matches!(encode(&wide), Err(EncodeError::TooMany { count: 65_536, .. })));
}
