// expect: conversion from|no viable conversion|could not convert
// A bare number does not become an identity by accident.
#include "protocols/words.h"

caisson::GrantRef first_reference() {
#ifdef MISUSE
    return 8;
#else
    return caisson::GrantRef(8);
#endif
}
