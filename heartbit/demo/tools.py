"""The demo's function tool."""

from __future__ import annotations

from heartbit.tools.function import tool


@tool(effect="pure")
def prime_factors(number: int) -> str:
    """Take a number apart.

    Args:
        number: A whole number from 2 to 10 million.
    """
    if not 2 <= number <= 10_000_000:
        return "Only numbers from 2 to 10 million can be taken apart here."
    factors, rest, divisor = [], number, 2
    while divisor * divisor <= rest:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    factors += [rest] if rest > 1 else []
    return f"{number} = {' x '.join(map(str, factors))}"
