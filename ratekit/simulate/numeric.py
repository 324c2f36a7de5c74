"""A world of numbers: rewards along a chain of rewrites, with the true effect of the attribute known exactly.

The latents of a response, and what a rewriter does to them in each pass:

    W    the attribute, 0 or 1: each pass sets it to the side asked for
    Z    content tied to W (`confounding`), 0 or 1: a pass must leave it alone
    xi   off-target traits (typos, markup, polish) that differ by W (`xi_gap`): a pass mends part of them

    reward = effect_i W + z_weight Z + xi_weight xi + wz W Z + wxi W xi + content_i + noise

The truth of row i is its reward with W=1 minus that with W=0, Z and xi as they were written.

>>> world = NumericWorld(effect=0.5, xi_gap=1.0, rewriter=Imperfections(rho=0.5))
>>> sample = world.sample(1000, seed=0)
>>> sample.rewards.shape, world.truth()
((1000, 4), {'ate': 0.5, 'att': 0.5, 'atu': 0.5})
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, require_whole
from ratekit.estimators import Floats


@dataclass(frozen=True)
class Imperfections:
    """What a rewriter does wrong; the defaults are a perfect one. The same knobs serve both worlds.

    Theory, for additive rewards: `rate` is biased by xi_weight * asymmetry (ATE, ATT, ATU alike), by
    leak * z_weight, and by the factor (1 - noncompliance)^2; rho biases ATT by xi_weight a1 rho (rho - 1), with
    a1 the treated responses' mean residue, and ATU by minus the same with a0 (see `estimators.convergence`).

    Parameters
    ----------
    rho
        share of the off-target residue that survives a pass: 0 mends all at once, 1 mends nothing
    asymmetry
        polish left by a pass towards the treated side and by no pass towards the other, in xi
    leak
        share of rows whose content Z follows W in every pass
    noncompliance
        chance that a pass leaves W as it is
    loss
        share of the content's richness lost for good with each pass
    noise
        SD of what a pass changes at random (text world: chance that a sentence is worded anew)

    Examples
    --------
    >>> Imperfections(rho=0.5).residue(2)
    0.25
    """

    rho: float = 0.0
    asymmetry: float = 0.0
    leak: float = 0.0
    noncompliance: float = 0.0
    loss: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rho", "leak", "noncompliance", "loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: a share between 0 and 1 was expected")
        if not (self.noise >= 0 and np.isfinite(self.asymmetry)):
            raise InputError(f"noise={self.noise}, asymmetry={self.asymmetry}: noise >= 0 and finite numbers expected")

    def residue(self, passes: int) -> float:
        """Share of the off-target residue left after so many passes: rho^passes."""
        return float(self.rho**passes)


class Sample(NamedTuple):
    """Rows drawn from a world: rewards (n, depth+1), treated (n,), clusters (n,) from 0, true effects (n,)."""

    rewards: Floats
    treated: NDArray[np.bool_]
    clusters: NDArray[np.int64]
    effects: Floats


@dataclass(frozen=True)
class NumericWorld:
    """Rewards with known truth. Units: with the defaults the rewards' SD within a class is near 1.

    Parameters
    ----------
    share_treated
        of the rows
    effect, effect_sd
        of W on the reward: mean, and SD between rows
    effect_gap
        how much larger the effect is for treated rows than for untreated
    confounding
        correlation of Z with W: P(Z = W) = (1 + confounding)/2
    z_weight
        of Z in the reward
    xi_gap, xi_sd
        mean of xi for treated rows (untreated: `xi_base`), and its SD within a class
    xi_weight
        of xi in the reward
    wz, wxi
        interactions of W with Z and with xi; not 0, the rewards are not additive
    richness
        reward of the content's detail, of which `loss` takes a share each pass
    content_sd
        SD of all else in a response, which no pass touches
    cluster_sizes
        (least, most) rows of a prompt, drawn uniformly
    icc
        share of the variance of effect_i, of content and of noise that the prompt accounts for
    mark
        xi that the first rewrite leaves and every later one keeps
    overshoot
        by how much of the effect the third and later passes go beyond the side that is asked for
    largest_cluster
        share of the rows that the first prompt holds
    heavy_tails
        Student t with 3 degrees of freedom (scaled to the same SD) in place of normal draws
    """

    rewriter: Imperfections = field(default_factory=Imperfections)
    share_treated: float = 0.5
    effect: float = 0.5
    effect_sd: float = 0.3
    effect_gap: float = 0.0
    confounding: float = 0.5
    z_weight: float = 0.5
    xi_gap: float = 0.0
    xi_base: float = 0.0
    xi_sd: float = 0.5
    xi_weight: float = -0.5
    wz: float = 0.0
    wxi: float = 0.0
    richness: float = 0.0
    content_sd: float = 0.8
    cluster_sizes: tuple[int, int] = (1, 1)
    icc: float = 0.3
    mark: float = 0.0
    overshoot: float = 0.0
    largest_cluster: float = 0.0
    heavy_tails: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share_treated < 1 or not 0 <= self.icc <= 1 or not abs(self.confounding) <= 1:
            raise InputError("0 < share_treated < 1, 0 <= icc <= 1 and -1 <= confounding <= 1 were expected")
        if not 0 <= self.largest_cluster < 1:
            raise InputError(f"largest_cluster={self.largest_cluster}: a share of the rows below 1 was expected")
        if not 1 <= self.cluster_sizes[0] <= self.cluster_sizes[1]:
            raise InputError(f"cluster_sizes={self.cluster_sizes}: (least, most) with 1 <= least <= most expected")

    def truth(self) -> dict[str, float]:
        """The population's ATE, ATT and ATU, in closed form."""
        att = self._effect_of(True)
        atu = self._effect_of(False)
        share = self.share_treated
        return {"ate": share * att + (1 - share) * atu, "att": att, "atu": atu}

    def _effect_of(self, treated: bool) -> float:
        z = (1 + self.confounding) / 2 if treated else (1 - self.confounding) / 2
        xi = self.xi_gap if treated else self.xi_base
        return self.effect + self.effect_gap * (treated - 0.5) + self.wz * z + self.wxi * xi

    def sample(self, n: int, seed: int | np.random.Generator = 0, depth: int = 3) -> Sample:
        """Rows of this world, n of them, rewritten `depth` times.

        Examples
        --------
        >>> NumericWorld().sample(4, seed=1).rewards.shape
        (4, 4)
        """
        require_whole("n", n, 1)
        require_whole("depth", depth)
        rng = np.random.default_rng(seed)
        clusters = self._clusters(n, rng)
        n_clusters = int(clusters[-1]) + 1
        own, shared = np.sqrt(1 - self.icc), np.sqrt(self.icc)
        lone = n_clusters == n  # a prompt of one row: nothing to share

        def draw() -> Floats:
            if lone:
                return self._draws(rng, n)
            return own * self._draws(rng, n) + shared * self._draws(rng, n_clusters)[clusters]

        treated = rng.random(n) < self.share_treated
        w = treated.astype(float)
        z = np.where(rng.random(n) < (1 + self.confounding) / 2, w, 1 - w)
        xi = np.where(treated, self.xi_gap, self.xi_base) + self.xi_sd * rng.standard_normal(n)
        effect = self.effect + self.effect_gap * (w - 0.5) + self.effect_sd * draw()
        content = self.content_sd * draw()
        true = effect + self.wz * z + self.wxi * xi

        knobs = self.rewriter
        follows = rng.random(n) < knobs.leak
        side, at = treated.copy(), w
        rewards = np.empty((n, depth + 1))
        for k in range(depth + 1):
            xi_k = xi * knobs.residue(k)
            z_k, rich = z, self.richness * (1 - knobs.loss) ** k
            if k:
                side = ~side
                complied = rng.random(n) >= knobs.noncompliance if knobs.noncompliance else True
                at = np.where(complied, side, at).astype(float)
                if k > 2 and self.overshoot:
                    at = at + self.overshoot * np.where(side, 1.0, -1.0)
                z_k = np.where(follows, at, z)
                xi_k = xi_k + self.mark
                if knobs.asymmetry:
                    xi_k = xi_k + knobs.asymmetry * side
            reward = (effect + self.wz * z_k + self.wxi * xi_k) * at + self.z_weight * z_k + self.xi_weight * xi_k
            rewards[:, k] = reward + rich + content
            if k and knobs.noise:
                rewards[:, k] += knobs.noise * draw()
        return Sample(rewards, treated, clusters, true)

    def _clusters(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        least, most = self.cluster_sizes
        first = round(self.largest_cluster * n)
        if most == 1:
            codes = np.arange(n - first)
        else:
            sizes = rng.integers(least, most + 1, size=n // least + 1)
            codes = np.repeat(np.arange(len(sizes)), sizes)[: n - first]
        return np.concatenate([np.zeros(first, np.int64), codes + 1]) if first else codes

    def _draws(self, rng: np.random.Generator, n: int) -> Floats:
        return rng.standard_t(3, n) / np.sqrt(3) if self.heavy_tails else rng.standard_normal(n)

    def but(self, **changes: object) -> NumericWorld:
        """This world with some parameters, or knobs of its rewriter, changed.

        Examples
        --------
        >>> NumericWorld().but(rho=0.3, effect=1.0).rewriter.rho
        0.3
        """
        knobs = {k: v for k, v in changes.items() if hasattr(self.rewriter, k)}
        rest = {k: v for k, v in changes.items() if k not in knobs}
        unknown = [k for k in rest if k not in self.__dataclass_fields__]
        if unknown:
            raise InputError(f"a numeric world has no parameter {unknown[0]!r}")
        return replace(self, rewriter=replace(self.rewriter, **knobs), **rest)  # type: ignore[arg-type]
