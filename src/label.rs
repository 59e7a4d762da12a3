//! Labels that are enums: a closed set of values, each with the one text that metrics, answers and logs show.

/// The closed set of values that a label, or a pair of labels, takes.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    fn all() -> Vec<Self>;
    /// Returns the names and values of the labels.
    fn labels(self) -> Vec<(&'static str, &'static str)>;
    /// Returns the value's place in [`Label::all`].
    fn index(self) -> usize;
}

/// Declares an enum that is a [`Label`]; each variant with the text that metrics, answers and logs show.
macro_rules! label {
    ($(#[$doc:meta])* pub enum $name:ident($label:literal) {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the text that metrics, answers and logs show.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl $crate::label::Label for $name {
            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn labels(self) -> Vec<(&'static str, &'static str)> {
                vec![($label, self.as_str())]
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use label;
