//! Every operation of the API once, with a collection where it may matter.

mod common;

use common::{Node, check_list, heap, list, with_scope};
use strikeslip::{
    Any, Array, AttachError, Bytes, Field, Heap, HeapError, HeapOptions, Mode, OutOfMemory, PinnedBytes,
    Reserved, Slot, Str, Words, object,
};

object! {
    struct Scalars {
        a: Field<u8>, b: Field<u16>, c: Field<u32>, d: Field<u64>, e: Field<usize>,
        f: Field<i8>, g: Field<i16>, h: Field<i32>, i: Field<i64>, j: Field<isize>,
        k: Field<bool>, l: Field<f32>, m: Field<f64>,
    }
    struct Empty {}
    struct Holder {
        before: Field<u64>,
        any: Slot<Any>,
        array: Slot<Array<Node>>,
        between: Field<u64>,
        table: Slot<Array<Array<Node>>>,
        bytes: Slot<Bytes>,
        words: Slot<Words>,
        text: Slot<Str>,
        after: Field<u64>,
    }
}

#[test]
fn new_objects_are_zero() {
    with_scope(|m, s| {
        for _ in 0..10_000 {
            m.scope(|m, inner| {
                let node = m.alloc::<Node>(inner).unwrap();
                let node = node.get(m);
                assert!(node.left.load().is_none() && node.right.is_null());
                assert_eq!(node.value.get(), 0);
                node.value.set(u64::MAX);
                node.left.store(m, Some(node));
            });
        }
        let bytes = m.alloc_zeroed_bytes(s, 100_000).unwrap();
        assert!(bytes.get(m).to_vec().iter().all(|&byte| byte == 0));
        let array = m.alloc_array::<Node>(s, 1_000).unwrap();
        assert!(array.get(m).slots().iter().all(Slot::is_null));
    });
}

#[test]
fn scalars_keep_their_values() {
    with_scope(|m, s| {
        let object = m.alloc::<Scalars>(s).unwrap();
        let x = object.get(m);
        assert!(!x.k.get() && x.m.get() == 0.0);
        x.a.set(u8::MAX);
        x.b.set(u16::MAX);
        x.c.set(u32::MAX);
        x.d.set(u64::MAX);
        x.e.set(usize::MAX);
        x.f.set(i8::MIN);
        x.g.set(i16::MIN);
        x.h.set(-3);
        x.i.set(i64::MIN);
        x.j.set(-5);
        x.k.set(true);
        x.l.set(-0.5);
        x.m.set(f64::MIN_POSITIVE);
        m.collect();
        let x = object.get(m);
        assert_eq!((x.a.get(), x.b.get(), x.c.get()), (u8::MAX, u16::MAX, u32::MAX));
        assert_eq!((x.d.get(), x.e.get()), (u64::MAX, usize::MAX));
        assert_eq!((x.f.get(), x.g.get(), x.h.get(), x.i.get()), (i8::MIN, i16::MIN, -3, i64::MIN));
        assert_eq!((x.j.get(), x.k.get(), x.l.get(), x.m.get()), (-5, true, -0.5, f64::MIN_POSITIVE));
        assert!(format!("{x:?}").contains("h: -3"));
    });
}

#[test]
fn references_are_identities() {
    with_scope(|m, s| {
        let (a, b) = (m.alloc::<Node>(s).unwrap(), m.alloc::<Node>(s).unwrap());
        let empty = m.alloc::<Empty>(s).unwrap();
        a.get(m).left.store(m, Some(b.get(m)));
        m.collect();
        let (a, b) = (a.get(m), b.get(m));
        assert!(a != b && a == a && a.left.load() == Some(b));
        assert!(b.ptr_eq(a.left.load().unwrap().erase()));
        assert!(!empty.get(m).ptr_eq(a));
        a.left.store(m, None);
        assert!(a.left.load().is_none());
    });
}

#[test]
fn any_remembers_what_it_is() {
    with_scope(|m, s| {
        let holder = m.alloc::<Holder>(s).unwrap();
        let nodes = m.alloc_array::<Node>(s, 2).unwrap();
        holder.get(m).any.store(m, Some(nodes.get(m).erase()));
        m.collect();
        let any = holder.get(m).as_ref().any.load().unwrap();
        assert!(any.is::<Array<Node>>() && !any.is::<Array<Any>>() && !any.is::<Array<Array<Node>>>());
        assert!(any.downcast::<Node>().is_none() && any.downcast::<Words>().is_none());
        assert!(any.downcast::<Array<Node>>() == Some(nodes.get(m)));

        let tables =
            (m.alloc_array::<Array<Node>>(s, 1).unwrap(), m.alloc_array::<Array<Words>>(s, 1).unwrap());
        let table = tables.0.get(m).erase();
        assert!(table.is::<Array<Array<Node>>>() && !table.is::<Array<Array<Words>>>());
        let text = m.alloc_str(s, "text").unwrap();
        assert!(text.get(m).erase().downcast::<Bytes>().is_none(), "a string cannot be written as bytes");
        let pinned = m.alloc_pinned_bytes(s, 3).unwrap();
        assert!(pinned.get(m).erase().is::<PinnedBytes>());
    });
}

#[test]
fn all_kinds_of_slots_follow_their_objects() {
    with_scope(|m, s| {
        let holder = m.alloc::<Holder>(s).unwrap();
        m.scope(|m, inner| {
            let node = list(m, inner, 10).unwrap();
            let array = m.alloc_array::<Node>(inner, 3).unwrap();
            array.get(m).set(m, 1, Some(node.get(m)));
            let table = m.alloc_array::<Array<Node>>(inner, 2).unwrap();
            table.get(m).slot(1).store(m, Some(array.get(m)));
            let bytes = m.alloc_bytes(inner, b"some bytes").unwrap();
            let words = m.alloc_words(inner, 3).unwrap();
            words.get(m).set(2, u64::MAX);
            let text = m.alloc_str(inner, "größer").unwrap();
            let h = holder.get(m);
            h.before.set(1);
            h.between.set(2);
            h.after.set(3);
            h.any.store(m, Some(h.erase()));
            h.array.store(m, Some(array.get(m)));
            h.table.store(m, Some(table.get(m)));
            h.bytes.store(m, Some(bytes.get(m)));
            h.words.store(m, Some(words.get(m)));
            h.text.store(m, Some(text.get(m)));
        });
        m.collect();
        let h = holder.get(m);
        assert_eq!((h.before.get(), h.between.get(), h.after.get()), (1, 2, 3));
        assert!(h.any.load().unwrap().downcast::<Holder>() == Some(h));
        let array = h.array.load().unwrap();
        assert!(array.len() == 3 && !array.is_empty() && array.get(0).is_none());
        check_list(array.get(1).unwrap(), 10);
        assert!(h.table.load().unwrap().get(1) == Some(array));
        assert!(h.bytes.load().unwrap().eq_bytes(b"some bytes"));
        let words = h.words.load().unwrap();
        assert_eq!((words.len(), words.get(0), words.get(2)), (3, 0, u64::MAX));
        assert!(h.text.load().unwrap().eq_str("größer"));
    });
}

#[test]
fn bytes_at_every_offset() {
    with_scope(|m, s| {
        for length in 0..40 {
            let mut expected: Vec<u8> = (0..length).collect();
            let object = m.alloc_bytes(s, &expected).unwrap();
            let bytes = object.get(m);
            assert!(bytes.len() == expected.len() && bytes.is_empty() == expected.is_empty());
            for offset in 0..expected.len() {
                let part: Vec<u8> = (0..(expected.len() - offset) as u8).map(|byte| byte ^ 0xA5).collect();
                let part = &part[..part.len().min(11)];
                bytes.write(offset, part);
                expected[offset..offset + part.len()].copy_from_slice(part);
                bytes.set(offset, 0xFF);
                expected[offset] = 0xFF;
                let mut copy = vec![0; part.len()];
                bytes.copy_to(offset, &mut copy);
                assert_eq!(copy, expected[offset..offset + part.len()]);
                assert_eq!(bytes.get(offset), 0xFF);
            }
            assert_eq!(bytes.to_vec(), expected);
            assert!(bytes.eq_bytes(&expected) && !bytes.eq_bytes(&[1; 41]));
            if let Some(last) = expected.last_mut() {
                *last ^= 1;
                assert!(!bytes.eq_bytes(&expected));
            }
        }
    });
}

#[test]
fn strings_are_copied_in_and_out() {
    with_scope(|m, s| {
        for text in ["", "a", "exactly8", "Ünïcödé and more than a word"] {
            let string = m.alloc_str(s, text).unwrap();
            m.collect();
            let string = string.get(m);
            assert!(string.eq_str(text) && !string.eq_str("other") && string.len() == text.len());
            assert_eq!(string.is_empty(), text.is_empty());
            assert_eq!(string.to_string(), text);
            assert_eq!(format!("{string:?}"), format!("{text:?}"));
            let mut buffer = "x".to_owned();
            string.push_to(&mut buffer);
            assert_eq!(buffer[1..], *text);
        }
    });
}

#[test]
fn pinned_bytes_keep_their_address() {
    with_scope(|m, s| {
        m.scope(|m, inner| list(m, inner, 10_000).map(|_| ()).unwrap());
        let pinned = m.alloc_pinned_bytes(s, 100).unwrap();
        pinned.get(m).write(0, b"here");
        let address = pinned.get(m).as_ptr();
        m.collect();
        m.collect();
        assert_eq!(pinned.get(m).as_ptr(), address);
        assert!(pinned.get(m).to_vec().starts_with(b"here"));
        // SAFETY: the address of 100 bytes that stay where they are while `pinned` is in scope, and
        // that no other thread knows.
        let byte = unsafe { address.add(3).read() };
        assert_eq!(byte, b'e');
    });
}

#[test]
fn reserved_memory_needs_no_safepoint() {
    with_scope(|m, s| {
        let kept = {
            let bytes = Reserved::bytes_of::<Node>();
            assert_eq!(bytes, 32);
            let reserved = m.reserve(2 * bytes + 5 * 8 + 4 * 8).unwrap();
            let (a, b) = (reserved.alloc::<Node>(), reserved.alloc::<Node>());
            let (array, words) = (reserved.alloc_array::<Node>(4), reserved.alloc_words(3));
            let m = reserved.mutator();
            a.left.store(m, Some(b));
            b.value.set(5);
            array.set(m, 3, Some(a));
            words.fill(7);
            (s.root(array), s.root(words))
        };
        m.collect();
        let (kept, words) = kept;
        assert_eq!([0, 1, 2].map(|index| words.get(m).get(index)), [7; 3]);
        assert_eq!(kept.get(m).get(3).unwrap().left.load().unwrap().value.get(), 5);
    });
}

#[test]
fn persistent_handles_outlive_attachments() {
    let heap = heap();
    let kept =
        heap.attach(|m| m.scope(|m, s| list(m, s, 1_000).map(|list| m.persistent(list.get(m))))).unwrap();
    let kept = kept.unwrap();
    heap.collect();
    std::thread::scope(|threads| {
        threads.spawn(|| heap.attach(|m| check_list(kept.get(m), 1_000)).unwrap());
    });
    heap.attach(|m| {
        let other = kept.duplicate(m);
        let second = kept.get(m).as_ref().left.load().unwrap();
        kept.set(m, second);
        m.collect();
        check_list(kept.get(m), 999);
        check_list(other.get(m), 1_000);
    })
    .unwrap();
    drop(heap); // the handle keeps it
    drop(kept);
}

/// Dropped on any thread, attached or not, and while collections run.
#[test]
fn persistent_handles_are_dropped_anywhere() {
    let heap = heap();
    std::thread::scope(|threads| {
        let (send, receive) = std::sync::mpsc::channel();
        threads.spawn(move || receive.into_iter().for_each(drop));
        threads.spawn(|| (0..20).for_each(|_| heap.collect()));
        heap.attach(|m| {
            for round in 0..3_000 {
                let handles: Vec<_> = m.scope(|m, s| {
                    list(m, s, 3).map(|list| (0..3).map(|_| m.persistent(list.get(m))).collect()).unwrap()
                });
                handles.iter().for_each(|handle| check_list(handle.get(m), 3));
                let mut handles = handles.into_iter();
                send.send(handles.next()).unwrap();
                drop(handles.next());
                let last = handles.next();
                if round % 8 == 0 {
                    m.blocked(|| drop(last));
                }
            }
            drop(send);
        })
        .unwrap();
    });
}

#[test]
fn running_out_of_memory_is_a_value() {
    with_scope(|m, s| {
        assert!(matches!(m.alloc_zeroed_bytes(s, 1 << 40), Err(OutOfMemory::TooLarge { .. })));
        assert!(matches!(m.alloc_array::<Node>(s, usize::MAX), Err(OutOfMemory::TooLarge { .. })));
        assert!(matches!(m.alloc_words(s, (1 << 32) + 1), Err(OutOfMemory::TooLarge { .. })));
        assert!(m.reserve(1 << 30).is_err());
        m.scope(|m, inner| {
            let error = (0..).find_map(|_| m.alloc_zeroed_bytes(inner, 1 << 20).err()).unwrap();
            assert!(matches!(error, OutOfMemory::HeapLimit { .. }), "{error}");
        });
        // The scope let go of it all.
        assert!(m.alloc_zeroed_bytes(s, 16 << 20).is_ok());
    });
}

#[test]
fn a_heap_tells_what_it_is() {
    let heap = heap();
    assert!(heap.delivery().is_some() == heap.mode().is_concurrent());
    assert!(!heap.choice().is_empty());
    assert_eq!(heap.snapshot().mode, heap.mode().name());
    heap.attach(|m| {
        assert_eq!(m.heap().mode(), heap.mode());
        let before = heap.snapshot().counters.cycles;
        m.collect();
        assert!(heap.snapshot().counters.cycles > before || heap.mode() == Mode::NoGc);
    })
    .unwrap();
}

#[test]
fn wrong_options_are_refused() {
    let error = Heap::new(HeapOptions { limit_bytes: 1, ..Default::default() }).unwrap_err();
    assert!(matches!(error, HeapError::BadOption { option: "heap limit", .. }));
}

#[test]
fn a_thread_attaches_once_to_each_heap() {
    let (a, b) = (heap(), heap());
    let inner = a.attach(|m| {
        assert_eq!(a.attach(|_| ()).unwrap_err(), AttachError::AlreadyAttached);
        assert_eq!(m.blocked(|| a.attach(|_| ())).unwrap_err(), AttachError::AlreadyAttached);
        m.blocked(|| b.attach(|_| a.attach(|_| ())))
    });
    assert_eq!(inner.unwrap().unwrap().unwrap_err(), AttachError::AlreadyAttached);
    assert_eq!(a.attach(|_| 5).unwrap(), 5, "detached again");
}
