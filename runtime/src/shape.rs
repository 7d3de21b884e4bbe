//! Shapes: what Rust types lie in the heap, and which layout the collector knows each by.
//!
//! Nothing runs here but the first allocation of a type, which registers its layout. [`object!`](crate::object!)
//! declares a type whose memory *is* its layout: a header word, then one word for each field, in
//! order.
//!
//! Invariants:
//! - a layout id belongs to exactly one Rust type, so a header decides a downcast;
//! - the words that the layout calls references are exactly the type's [`Slot`](crate::Slot)s;
//! - a value of such a type exists in heap memory only: nothing outside this crate can make an
//!   [`ObjectHeader`].

use std::any::TypeId;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

use strikeslip_gc::geometry::WORD_BYTES;
use strikeslip_gc::layout::{Header, Layout, LayoutId, Tail, register_layout};

/// The first word of every object. It cannot be made outside this crate, so neither can an object.
///
/// It also makes objects `!Send` and `!Sync`: a plain `&T` into the heap is as good as a
/// [`Gc`](crate::Gc), and belongs to a mutator.
#[repr(transparent)]
pub struct ObjectHeader {
    bits: u64,
    not_sync: PhantomData<*const ()>,
}

impl ObjectHeader {
    #[inline]
    pub(crate) const fn get(&self) -> Header {
        Header::from_bits(self.bits)
    }
}

impl std::fmt::Debug for ObjectHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "layout {} x {}", self.get().layout_id().get(), self.get().length())
    }
}

/// What a reference may refer to.
///
/// # Safety
/// Implement it by [`object!`](crate::object!) only. The type begins with an [`ObjectHeader`], needs no drop, and
/// all its other memory is [`Slot`](crate::Slot)s and [`Field`](crate::Field)s.
pub unsafe trait Object: 'static + Sized {
    /// The layout of [`Array<Self>`](crate::Array).
    #[doc(hidden)]
    fn array_layout() -> LayoutId {
        array_layout_by_type(TypeId::of::<Self>())
    }
}

/// An object type with a layout of its own: all but [`Any`](crate::Any).
///
/// # Safety
/// `layout` returns an id that no other type returns, of a layout that agrees with the type.
pub unsafe trait Typed: Object {
    /// Id of the type's layout.
    fn layout() -> LayoutId;
}

/// An object type of fixed size, as [`object!`](crate::object!) declares them.
///
/// # Safety
/// An object of layout `Self::layout()` and no tail is a valid `Self` when its fields are zero.
pub unsafe trait Fixed: Typed {
    /// Bytes of an object, header included.
    const BYTES: usize = if size_of::<Self>() < MIN { MIN } else { size_of::<Self>() };
}

const MIN: usize = strikeslip_gc::geometry::MIN_OBJECT_BYTES;

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for crate::Slot<T> {}
    impl<T: crate::Scalar> Sealed for crate::Field<T> {}
}

/// What a field of an object may be: [`Slot`](crate::Slot) or [`Field`](crate::Field). Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a heap object",
    note = "fields are `Slot<T>` for references and `Field<T>` for scalars"
)]
pub trait HeapWord: sealed::Sealed {
    /// Whether the word is a reference.
    const IS_REFERENCE: bool;
}
impl<T: Object> HeapWord for crate::Slot<T> {
    const IS_REFERENCE: bool = true;
}
impl<T: crate::Scalar> HeapWord for crate::Field<T> {
    const IS_REFERENCE: bool = false;
}

/// Byte offset and kind of each field, as [`object!`](crate::object!) found them.
#[doc(hidden)]
pub type Fields = [(usize, bool)];

/// Whether a type with these fields is laid out as its layout will say. Evaluated at compile time.
#[doc(hidden)]
#[must_use]
pub const fn agrees<T>(fields: &Fields) -> bool {
    let mut index = 0;
    while index < fields.len() {
        let (offset, is_reference) = fields[index];
        if offset != (1 + index) * WORD_BYTES || (is_reference && index >= u64::BITS as usize) {
            return false;
        }
        index += 1;
    }
    size_of::<T>() == (1 + fields.len()) * WORD_BYTES
        && align_of::<T>() == WORD_BYTES
        && !std::mem::needs_drop::<T>()
}

/// Registers the layout of a type with these fields.
#[doc(hidden)]
#[must_use]
pub fn register_fixed(fields: &Fields) -> LayoutId {
    let references: Vec<u32> = (0..).zip(fields).filter(|(_, field)| field.1).map(|(word, _)| word).collect();
    let words = u32::try_from(fields.len()).expect("a struct has fewer fields");
    register(Layout::new(words, &references, Tail::None))
}

/// Registers a layout of a tail only.
#[doc(hidden)]
#[must_use]
pub fn register_tail(tail: Tail) -> LayoutId {
    register(Layout::new(0, &[], tail))
}

fn register(layout: Result<Layout, strikeslip_gc::layout::LayoutError>) -> LayoutId {
    // Both can only fail for a program with a million object types, or one that `agrees` refused.
    layout.and_then(register_layout).expect("the layout of an object type can be registered")
}

/// Layouts of arrays whose element type has no static of its own to keep it in: arrays of arrays.
fn array_layout_by_type(element: TypeId) -> LayoutId {
    static LAYOUTS: OnceLock<Mutex<HashMap<TypeId, LayoutId>>> = OnceLock::new();
    let layouts = LAYOUTS.get_or_init(Mutex::default);
    let mut layouts = layouts.lock().unwrap_or_else(PoisonError::into_inner);
    *layouts.entry(element).or_insert_with(|| register_tail(Tail::References))
}

/// Returns a layout id from a static of the place where it is used.
#[doc(hidden)]
#[macro_export]
macro_rules! __layout_once {
    ($register:expr) => {{
        static LAYOUT: ::std::sync::OnceLock<$crate::gc::layout::LayoutId> = ::std::sync::OnceLock::new();
        *LAYOUT.get_or_init(|| $register)
    }};
}

/// Declares types of heap objects.
///
/// Fields are [`Slot<T>`](crate::Slot) (a reference to an object, or null) and
/// [`Field<T>`](crate::Field) (a scalar). An object is made by
/// [`Mutator::alloc`](crate::Mutator::alloc), with null references and zero scalars; there is no
/// other way to make one.
///
/// ```
/// strikeslip::object! {
///     /// A node of a tree.
///     pub struct Node {
///         /// Smaller keys.
///         left: strikeslip::Slot<Node>,
///         /// Greater keys.
///         right: strikeslip::Slot<Node>,
///         /// The key.
///         pub key: strikeslip::Field<u64>,
///     }
/// }
/// ```
#[macro_export]
macro_rules! object {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $type:ty),* $(,)?
        }
    )+) => {$(
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name {
            #[doc(hidden)]
            __header: $crate::shape::ObjectHeader,
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        const _: () = {
            const FIELDS: &$crate::shape::Fields = &[
                $((::std::mem::offset_of!($name, $field), <$type as $crate::shape::HeapWord>::IS_REFERENCE),)*
            ];
            assert!(
                $crate::shape::agrees::<$name>(FIELDS),
                "an object type has one word for each field, at most 64 of them up to its last reference, and no drop",
            );
            // SAFETY: the type begins with the header, and each field is a `HeapWord`; `agrees`
            // checked that nothing else is in it and that it needs no drop.
            unsafe impl $crate::shape::Object for $name {
                fn array_layout() -> $crate::gc::layout::LayoutId {
                    $crate::__layout_once!($crate::shape::register_tail($crate::gc::layout::Tail::References))
                }
            }
            // SAFETY: the id is registered here, for this type, from its own fields.
            unsafe impl $crate::shape::Typed for $name {
                fn layout() -> $crate::gc::layout::LayoutId {
                    $crate::__layout_once!($crate::shape::register_fixed(FIELDS))
                }
            }
            // SAFETY: a zero `Slot` is null and a zero `Field` is the scalar zero.
            unsafe impl $crate::shape::Fixed for $name {}

            impl ::std::fmt::Debug for $name {
                fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                    f.debug_struct(stringify!($name))$(.field(stringify!($field), &self.$field))*.finish()
                }
            }
        };
    )+};
}
