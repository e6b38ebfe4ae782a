"""The arithmetic of the normalizations: sums, guards against lost digits, devices, arguments.

The layer in closed form, which every form here computes (``by_sample``: one norm a sample;
``by_row``: one norm a position; with slabs, masks and devices). Inputs ``x[n, p, c]``: n of N
samples, p of P positions, c a channel; M = N P values a channel. kappa weighs the squares in the
norm: 1/P^2 for the unit "reference", 1 for "sample", 1/(P C) for "rms".

Forward, two passes over x, one for S1 and S2 and one for y::

    sums over positions   S1[n,c] = sum_p x                 S2[n,c] = sum_p x^2
    statistics            m = sum_n S1 / M                  v = sum_n S2 / M - m^2
    centred               D = S1 - P m                      Q = S2 - 2 m S1 + P m^2
    norm                  s[n] = sum_c kappa r^2 Q          q = (s + epsilon)^(-1/2)
    output                y = scale r (1 + alpha w) (x - m) + bias
                          r = (v + epsilon)^(-1/2)          w = q - 1

Backward, two passes over (dy, x), one for G and H and one for dx; u = scale r::

    G[n,c] = sum_p dy                        H[n,c] = sum_p dy (x - m)
    dbias  = sum_n G                         dscale = r sum_n (1 + alpha w) H
    dalpha = u sum_n w H                     ds[n]  = -q^3 / 2 sum_c u alpha H
    dv     = -r^2 / 2 (u sum_n (1 + alpha w) H + 2 sum_n kappa r^2 ds Q)
    dm     = -u sum_n (1 + alpha w) G - 2 sum_n kappa r^2 ds D
    dx     = u (1 + alpha w) dy + (2 kappa r^2 ds + 2 dv / M) (x - m) + dm / M

What is summed over samples (G, w G, H, w H, ds Q, ds D) is small and additive, so a sample may be
summed in pieces, and devices need one collective each way.

Where digits go: sums about zero lose those of the variance where m^2 is large against v, and
those of a norm where m^2 is large against v in its channels. Both ratios are known once the sums
are, and beyond a bound the sums are taken again about the mean (``shifted_sums``). With a mask
M counts what is valid. The authors' correction multiplies v by M / (M - 1 - epsilon) after D and Q
are formed. Derived here; tests hold it against automatic differentiation in float64.
"""
