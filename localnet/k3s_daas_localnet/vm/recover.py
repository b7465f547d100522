"""Recovers the public key of an ECDSA signature, which `cryptography` has no call for (SEC 1, 4.1.6).

Plain Python and not constant in time: it handles nothing secret.
"""

from __future__ import annotations

from dataclasses import dataclass

_Point = tuple[int, int, int]  # Jacobian coordinates; z is 0 at infinity


@dataclass(frozen=True)
class Curve:
    """y² = x³ + ax + b over a prime field whose prime is 3 modulo 4, with generator and its order."""

    prime: int
    a: int
    b: int
    generator: tuple[int, int]
    order: int

    def recover(self, digest: bytes, r: int, s: int, v: int) -> bytes:
        """The compressed key (33 bytes) that signed. `v`: bit 0 the parity of R's y, bit 1 that x overflowed.

        Raises ValueError when there is none.
        """
        if not (0 < r < self.order and 0 < s < self.order and 0 <= v < 4):
            raise ValueError("no signature")
        x = r + (self.order if v & 2 else 0)
        if x >= self.prime:
            raise ValueError("no point of the curve")
        y = self._y(x, v & 1)
        inverse = pow(r, -1, self.order)
        number = int.from_bytes(digest, "big")
        point = self._add(
            self._times((x, y, 1), s * inverse % self.order),
            self._times((*self.generator, 1), -number * inverse % self.order),
        )
        if not point[2]:
            raise ValueError("the key would be at infinity")
        scale = pow(point[2], -1, self.prime)
        key_x, key_y = point[0] * scale**2 % self.prime, point[1] * scale**3 % self.prime
        return bytes([2 + key_y % 2]) + key_x.to_bytes(32, "big")

    def _y(self, x: int, parity: int) -> int:
        square = (x**3 + self.a * x + self.b) % self.prime
        y = pow(square, (self.prime + 1) // 4, self.prime)
        if y * y % self.prime != square:
            raise ValueError("no point of the curve")
        return y if y % 2 == parity else self.prime - y

    def _times(self, point: _Point, factor: int) -> _Point:
        result: _Point = (1, 1, 0)
        for bit in bin(factor)[2:]:
            result = self._double(result)
            if bit == "1":
                result = self._add(result, point)
        return result

    def _double(self, point: _Point) -> _Point:
        x, y, z = point
        p = self.prime
        if not y or not z:
            return (1, 1, 0)
        s = 4 * x * y * y % p
        m = (3 * x * x + self.a * pow(z, 4, p)) % p
        new_x = (m * m - 2 * s) % p
        return new_x, (m * (s - new_x) - 8 * pow(y, 4, p)) % p, 2 * y * z % p

    def _add(self, one: _Point, other: _Point) -> _Point:
        if not one[2]:
            return other
        if not other[2]:
            return one
        p = self.prime
        z1, z2 = one[2] ** 2 % p, other[2] ** 2 % p
        u1, u2 = one[0] * z2 % p, other[0] * z1 % p
        s1, s2 = one[1] * z2 * other[2] % p, other[1] * z1 * one[2] % p
        if u1 == u2:
            return self._double(one) if s1 == s2 else (1, 1, 0)
        h, r = u2 - u1, s2 - s1
        h2 = h * h % p
        h3, u = h * h2 % p, u1 * h2 % p
        x = (r * r - h3 - 2 * u) % p
        return x, (r * (u - x) - s1 * h3) % p, h * one[2] * other[2] % p


SECP256K1 = Curve(
    prime=2**256 - 2**32 - 977,
    a=0,
    b=7,
    generator=(
        0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
        0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    ),
    order=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
)
SECP256R1 = Curve(
    prime=2**256 - 2**224 + 2**192 + 2**96 - 1,
    a=-3,
    b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    generator=(
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    ),
    order=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
)
