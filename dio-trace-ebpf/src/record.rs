//! Records in the values of maps, field by field.
//!
//! A record is shared with other CPUs, and with interrupts on this one: there is never a Rust
//! reference to it, only loads and stores of single fields. `fields!` gives a type that wraps the
//! record's address a method for each of its fields. Who makes such a value vouches for the
//! address; which field may be read or written when, the record's module says (in_flight.rs,
//! thread_table.rs).

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ops::{Add, BitAnd, BitOr, Not},
};

/// A field of a record in a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Field<T>(*mut T);

impl<T: Copy> Field<T> {
    /// # Safety
    /// `at` lies, aligned, in a map's value, which stays mapped as long as the program runs.
    #[inline(always)]
    pub const unsafe fn new(at: *mut T) -> Self {
        Self(at)
    }

    #[inline(always)]
    pub const fn as_ptr(self) -> *mut T {
        self.0
    }

    #[inline(always)]
    pub fn get(self) -> T {
        // SAFETY: see `new`.
        unsafe { *self.0 }
    }

    #[inline(always)]
    pub fn set(self, value: T) {
        // SAFETY: see `new`.
        unsafe { *self.0 = value }
    }

    /// A load that stays: see the callers for what else the compiler would make of it.
    #[inline(always)]
    pub fn get_volatile(self) -> T {
        // SAFETY: see `new`.
        unsafe { self.0.read_volatile() }
    }

    /// A store that stays by itself: see the callers for what else the compiler would make of it.
    #[inline(always)]
    pub fn set_volatile(self, value: T) {
        // SAFETY: see `new`.
        unsafe { self.0.write_volatile(value) }
    }

    /// The value, which is the default from here on.
    #[inline(always)]
    pub fn take(self) -> T
    where
        T: Default,
    {
        let value = self.get();
        self.set(T::default());
        value
    }

    #[inline(always)]
    pub fn add(self, more: T)
    where
        T: Add<Output = T>,
    {
        self.set(self.get() + more);
    }

    /// Adds to a number of this CPU. In one instruction: a completion's interrupt may come between
    /// the load and the store of two, and add to the same number.
    #[inline(always)]
    pub fn add_atomic(self, more: T) {
        // SAFETY: see `new`.
        unsafe { atomic_xadd::<T, T, { AtomicOrdering::Relaxed }>(self.0, more) };
    }

    #[inline(always)]
    pub fn has(self, bits: T) -> bool
    where
        T: BitAnd<Output = T> + Default + PartialEq,
    {
        self.get() & bits != T::default()
    }

    #[inline(always)]
    pub fn set_bits(self, bits: T)
    where
        T: BitOr<Output = T>,
    {
        self.set(self.get() | bits);
    }

    #[inline(always)]
    pub fn clear_bits(self, bits: T)
    where
        T: BitAnd<Output = T> + Not<Output = T>,
    {
        self.set(self.get() & !bits);
    }
}

/// Methods of a type that wraps a record's address: a [`Field`] for each of these fields. `in a.b`
/// takes the fields of a struct within the record.
macro_rules! fields {
    ($Ref:ident: $($fields:tt)+) => { $crate::record::fields!(@ $Ref [] $($fields)+); };
    ($Ref:ident in $first:ident $(.$then:ident)*: $($fields:tt)+) => {
        $crate::record::fields!(@ $Ref [$first. $($then.)*] $($fields)+);
    };
    (@ $Ref:ident $path:tt $($(#[$m:meta])* $vis:vis $field:ident: $ty:ty,)+) => {
        impl $Ref {
            $(
                $(#[$m])*
                #[inline(always)]
                $vis fn $field(self) -> $crate::record::Field<$ty> {
                    // SAFETY: the address is that of a record in a map's value.
                    unsafe { $crate::record::Field::new($crate::record::field!(self $path $field)) }
                }
            )+
        }
    };
}

/// The address of a field, see [`fields`].
macro_rules! field {
    ($this:ident [$($path:tt)*] $field:ident) => { &raw mut (*$this.0).$($path)* $field };
}
pub(crate) use field;
pub(crate) use fields;
