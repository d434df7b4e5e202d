"""Wrong solutions of Assignment 3 that students really write.

Each is complete in itself.  `caught_by` lists every criterion of the exercise that it fails; `says` is what the
student is told where the same results come back.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from course_utils.checking import mistake

# --- Patches ---------------------------------------------------------------------------------------------------------


@mistake(
    "patchify",
    caught_by=("patches_row_by_row", "patches_are_squares", "patches_of_one_pixel"),
    says="`reshape` alone cuts the memory into pieces of the right length, not the image into squares: a patch gets "
    "pixels of a few whole rows. Split H and W into (H/f, f) and (W/f, f) first and bring the axes into order "
    "with `permute`.",
)
def patches_by_reshape_alone(images, f):
    N, C, H, W = images.shape
    return images.reshape(N, (H // f) * (W // f), C * f * f)


@mistake(
    "patchify",
    caught_by="pixels_of_a_patch",
    says="The pixels of a patch are laid out (f, f, C), with the channels last. The filters of this course have the "
    "order (C, f, f), so every filter would meet the wrong pixels.",
)
def patches_channels_last(images, f):
    N, C, H, W = images.shape
    squares = images.reshape(N, C, H // f, f, W // f, f)
    return squares.permute(0, 2, 4, 3, 5, 1).reshape(N, -1, C * f * f)


@mistake(
    "patchify",
    caught_by=("patches_row_by_row", "patches_of_one_pixel"),
    says="The patches come column by column; they are to come row by row, from left to right.",
)
def patches_column_by_column(images, f):
    N, C, H, W = images.shape
    squares = images.reshape(N, C, H // f, f, W // f, f)
    return squares.permute(0, 4, 2, 1, 3, 5).reshape(N, -1, C * f * f)


@mistake(
    "patchify",
    caught_by="pixels_of_a_patch",
    says="Within a patch rows and columns are exchanged: the pixels go down the columns instead of along the rows.",
)
def patches_transposed_inside(images, f):
    N, C, H, W = images.shape
    squares = images.reshape(N, C, H // f, f, W // f, f)
    return squares.permute(0, 2, 4, 1, 5, 3).reshape(N, -1, C * f * f)


@mistake(
    "patchify",
    caught_by=("patches_row_by_row", "patches_are_squares"),
    says="H and W are split as (f, H/f) where (H/f, f) is meant, so a patch gets every (H/f)-th pixel of the whole "
    "image instead of f × f neighbours.",
)
def patches_of_far_pixels(images, f):
    N, C, H, W = images.shape
    squares = images.reshape(N, C, f, H // f, f, W // f)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(N, -1, C * f * f)


@mistake(
    "patchify",
    caught_by=("keeps_form", "bytes_stay_bytes"),
    says="The patches are converted to float32, so float64 images lose more than half of their digits.",
)
def patches_in_float32(images, f):
    N, C, H, W = images.shape
    squares = images.float().reshape(N, C, H // f, f, W // f, f)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(N, -1, C * f * f)


# --- im2col and col2im -----------------------------------------------------------------------------------------------


def padded(images, padding):
    """The images with zeros around them."""
    return functional.pad(images, (padding, padding, padding, padding))


def windows_of(images, kh, kw, stride):
    """Every window, (N, C, H_out, W_out, kh, kw)."""
    return images.unfold(2, kh, stride).unfold(3, kw, stride)


def columns_of(windows):
    """Windows as columns, (N, C·kh·kw, L)."""
    N, C, H, W, kh, kw = windows.shape
    return windows.permute(0, 1, 4, 5, 2, 3).reshape(N, C * kh * kw, H * W)


def added_up(cols, shape, kh, kw, stride, padding, assign=False):
    """The transpose of im2col, on the padded images."""
    N, C, H, W = shape
    H_out, W_out = (H + 2 * padding - kh) // stride + 1, (W + 2 * padding - kw) // stride + 1
    cols = cols.reshape(N, C, kh, kw, H_out, W_out)
    images = cols.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    for i in range(kh):
        for j in range(kw):
            place = images[:, :, i : i + stride * H_out : stride, j : j + stride * W_out : stride]
            if assign:
                place.copy_(cols[:, :, i, j])
            else:
                place.add_(cols[:, :, i, j])
    return images


def cut(images, padding):
    """The images without the edge of the padding."""
    return images[:, :, padding : images.shape[2] - padding, padding : images.shape[3] - padding]


@mistake(
    "im2col",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="The zeros are put above and below the image only; left and right need them too.",
)
def columns_padded_above_and_below(images, kh, kw, stride, padding):
    wide = torch.zeros(*images.shape[:2], images.shape[2] + 2 * padding, images.shape[3] + 2 * padding).to(images)
    wide[:, :, padding : padding + images.shape[2], : images.shape[3]] = images
    return columns_of(windows_of(wide, kh, kw, stride))


@mistake(
    "im2col",
    caught_by="pixels_of_a_window",
    says="The entries of a column have the order (kh, kw, C). The filters have (C, kh, kw), so each weight would "
    "meet the wrong pixel.",
)
def columns_channels_last(images, kh, kw, stride, padding):
    windows = windows_of(padded(images, padding), kh, kw, stride)
    N, C, H, W = windows.shape[:4]
    return windows.permute(0, 4, 5, 1, 2, 3).reshape(N, C * kh * kw, H * W)


@mistake(
    "im2col",
    caught_by="windows_row_by_row",
    says="The windows come column by column; row by row is asked for, or the output image is transposed.",
)
def columns_of_transposed_windows(images, kh, kw, stride, padding):
    windows = windows_of(padded(images, padding), kh, kw, stride)
    N, C, H, W = windows.shape[:4]
    return windows.permute(0, 1, 4, 5, 3, 2).reshape(N, C * kh * kw, H * W)


@mistake(
    "im2col",
    caught_by=(
        "pixels_of_a_window",
        "every_window_has_its_column",
        "stride_and_padding_together",
        "smallest_sizes",
    ),
    says="kh and kw are exchanged: kh is the number of rows of a window, kw that of its columns.",
)
def columns_with_kh_and_kw_exchanged(images, kh, kw, stride, padding):
    return columns_of(windows_of(padded(images, padding), kw, kh, stride))


@mistake(
    "im2col",
    caught_by=("strides", "stride_and_padding_together"),
    says="The number of windows is rounded up (ceil), which lets the last ones hang over the edge. What does not "
    "fill a window is left out: floor.",
)
def columns_rounded_up(images, kh, kw, stride, padding):
    images = padded(images, padding)
    more = [-(n - k) % stride for n, k in zip(images.shape[2:], (kh, kw), strict=True)]
    return columns_of(windows_of(functional.pad(images, (0, more[1], 0, more[0])), kh, kw, stride))


@mistake(
    "im2col",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="The padding repeats the pixels at the edge. Zeros are asked for.",
)
def columns_padded_with_edge_values(images, kh, kw, stride, padding):
    if padding:
        images = functional.pad(images, (padding,) * 4, mode="replicate")
    return columns_of(windows_of(images, kh, kw, stride))


@mistake(
    "im2col",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="`padding` is not used: the images get no zeros around them.",
)
def columns_without_padding(images, kh, kw, stride, padding):
    return columns_of(windows_of(images, kh, kw, stride))


@mistake(
    "im2col",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="functional.pad counts its pairs from the last axis: six numbers pad the channels as well, and so make new "
    "channels of zeros. Height and width are the last two axes: four numbers.",
)
def columns_with_padded_channels(images, kh, kw, stride, padding):
    return columns_of(windows_of(functional.pad(images, (padding,) * 6), kh, kw, stride))


@mistake(
    "im2col",
    caught_by=("strides", "stride_and_padding_together"),
    says="The stride is used down the image but not across.",
)
def columns_with_stride_down_only(images, kh, kw, stride, padding):
    return columns_of(padded(images, padding).unfold(2, kh, stride).unfold(3, kw, 1))


@mistake(
    "col2im",
    caught_by="overlaps_add",
    says="The entries are assigned, so of several that belong to one pixel only the last is kept. They add up: `+=` "
    "on slices; with index lists even `+=` assigns, and `index_put_(…, accumulate=True)` adds.",
)
def overlaps_assigned(cols, shape, kh, kw, stride, padding):
    return cut(added_up(cols, shape, kh, kw, stride, padding, assign=True), padding)


@mistake(
    "col2im",
    caught_by="overlaps_add",
    says="The sum at every pixel is divided by the number of windows that see it. The transpose of im2col only adds: "
    "a pixel that was used four times gets four gradients.",
)
def overlaps_averaged(cols, shape, kh, kw, stride, padding):
    counts = added_up(torch.ones_like(cols), shape, kh, kw, stride, padding).clamp(min=1)
    return cut(added_up(cols, shape, kh, kw, stride, padding) / counts, padding)


@mistake(
    "col2im",
    caught_by=("padding_is_cut_off", "stride_and_padding_together"),
    says="The padding is not cut off again: the result is larger than the images.",
)
def padding_kept(cols, shape, kh, kw, stride, padding):
    return added_up(cols, shape, kh, kw, stride, padding)


@mistake(
    "col2im",
    caught_by=("padding_is_cut_off", "stride_and_padding_together"),
    says="All of the padding is cut off at one side. There are `padding` rows and columns of zeros on every side.",
)
def padding_cut_on_one_side(cols, shape, kh, kw, stride, padding):
    return added_up(cols, shape, kh, kw, stride, padding)[:, :, : shape[2], : shape[3]]


@mistake(
    "col2im",
    caught_by=("windows_side_by_side", "keeps_form"),
    says="`[:, :, p:-p, p:-p]` is empty where p = 0, because −0 is 0. Write the end as p + H: "
    "`[:, :, p : p + H, p : p + W]`.",
)
def padding_cut_by_minus_zero(cols, shape, kh, kw, stride, padding):
    return added_up(cols, shape, kh, kw, stride, padding)[:, :, padding:-padding, padding:-padding]


@mistake(
    "col2im",
    caught_by=("windows_side_by_side", "overlaps_add", "smallest_sizes"),
    says="The columns are read in the order (kh, kw, C); im2col wrote them as (C, kh, kw).",
)
def columns_read_channels_last(cols, shape, kh, kw, stride, padding):
    cols = cols.reshape(len(cols), kh, kw, shape[1], -1).permute(0, 3, 1, 2, 4).reshape(cols.shape)
    return cut(added_up(cols, shape, kh, kw, stride, padding), padding)


@mistake(
    "col2im",
    caught_by="strides_back",
    says="The stride is left out when the entries are put back: window (i, j) starts at pixel (i·stride, j·stride).",
)
def folded_without_stride(cols, shape, kh, kw, stride, padding):
    N, C, H, W = shape
    H_out, W_out = (H + 2 * padding - kh) // stride + 1, (W + 2 * padding - kw) // stride + 1
    cols = cols.reshape(N, C, kh, kw, H_out, W_out)
    images = cols.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    for i in range(kh):
        for j in range(kw):
            images[:, :, i : i + H_out, j : j + W_out] += cols[:, :, i, j]
    return cut(images, padding)


# --- Convolution -----------------------------------------------------------------------------------------------------


def convolved(X, F, b, stride, padding):
    """The convolution, and a cache."""
    windows = windows_of(padded(X, padding), *F.shape[2:], stride)
    out = torch.einsum("nchwij,fcij->nfhw", windows, F) + b[:, None, None]
    return out, (columns_of(windows), X.shape, F, stride, padding)


def gradient_of_images(grad_out, cache):
    """∂ / ∂ X of the convolution, still with the padding's edge."""
    _, shape, F, stride, padding = cache
    cols = torch.einsum("nfhw,fcij->ncijhw", grad_out, F).flatten(4).flatten(1, 3)
    return added_up(cols, shape, *F.shape[2:], stride, padding)


def gradient_of_filters(grad_out, cache):
    """∂ / ∂ F of the convolution."""
    return torch.einsum("nal,nfl->fa", cache[0], grad_out.flatten(2)).reshape(cache[2].shape)


@mistake(
    "conv2d_forward",
    caught_by="cross_correlation",
    says="The filters are turned by 180°, as in the convolution of mathematics. Deep learning's convolution lays "
    "them over the image as they stand (a cross-correlation).",
)
def filters_flipped(X, F, b, stride, padding):
    return convolved(X, F.flip(2, 3), b, stride, padding)[0], convolved(X, F, b, stride, padding)[1]


@mistake(
    "conv2d_forward",
    caught_by="cross_correlation",
    says="Rows and columns of the filters are exchanged: F[k, c, i, j] belongs to row i and column j of the window.",
)
def filters_transposed(X, F, b, stride, padding):
    windows = windows_of(padded(X, padding), *F.shape[2:], stride)
    out = torch.einsum("nchwij,fcij->nfhw", windows, F.transpose(2, 3).reshape(F.shape)) + b[:, None, None]
    return out, (columns_of(windows), X.shape, F, stride, padding)


@mistake(
    "conv2d_forward",
    caught_by="bias_is_added",
    says="b is not added.",
)
def convolution_without_bias(X, F, b, stride, padding):
    return convolved(X, F, 0 * b, stride, padding)[0], convolved(X, F, b, stride, padding)[1]


@mistake(
    "conv2d_forward",
    caught_by=("bias_is_added", "smallest_sizes"),
    says="b is added once for every weight of the filter (or channel) instead of once for every pixel of the map.",
)
def bias_added_for_every_channel(X, F, b, stride, padding):
    out, cache = convolved(X, F, b * X.shape[1], stride, padding)
    return out, cache


@mistake(
    "conv2d_forward",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="`padding` is not used, so the maps come out too small.",
)
def convolution_without_padding(X, F, b, stride, padding):
    return convolved(X, F, b, stride, 0)


@mistake(
    "conv2d_forward",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="The padding repeats the pixels at the edge (or mirrors them). Zeros are asked for.",
)
def convolution_padded_with_edge_values(X, F, b, stride, padding):
    wider = functional.pad(X, (padding,) * 4, mode="replicate") if padding else X
    return convolved(wider, F, b, stride, 0)[0], convolved(X, F, b, stride, padding)[1]


@mistake(
    "conv2d_forward",
    caught_by=("zero_padding", "stride_and_padding_together"),
    says="Zeros are put only before the first row and column: `padding` counts on each of the four sides.",
)
def convolution_padded_on_two_sides(X, F, b, stride, padding):
    wider = functional.pad(X, (2 * padding, 0, 2 * padding, 0))
    return convolved(wider, F, b, stride, 0)[0], convolved(X, F, b, stride, padding)[1]


@mistake(
    "conv2d_forward",
    caught_by=("strides", "stride_and_padding_together"),
    says="The size of the maps is rounded up (ceil). Windows that do not fit whole are left out: floor.",
)
def convolution_rounded_up(X, F, b, stride, padding):
    wider = padded(X, padding)
    more = [-(n - k) % stride for n, k in zip(wider.shape[2:], F.shape[2:], strict=True)]
    return convolved(functional.pad(wider, (0, more[1], 0, more[0])), F, b, stride, 0)


@mistake(
    "conv2d_forward",
    caught_by=("strides", "stride_and_padding_together"),
    says="The stride counts down the image but not across.",
)
def convolution_with_one_stride(X, F, b, stride, padding):
    windows = padded(X, padding).unfold(2, F.shape[2], stride).unfold(3, F.shape[3], 1)
    out = torch.einsum("nchwij,fcij->nfhw", windows, F) + b[:, None, None]
    return out, (columns_of(windows), X.shape, F, stride, padding)


@mistake(
    "conv2d_forward",
    caught_by=("cross_correlation", "smallest_sizes"),
    says="The products are averaged over the window instead of summed.",
)
def products_averaged(X, F, b, stride, padding):
    out, cache = convolved(X, F / F[0].numel(), b, stride, padding)
    return out, (cache[0], cache[1], F, stride, padding)


@mistake(
    "conv2d_forward",
    caught_by="cross_correlation",
    says="The maps of the channels are not summed: channel 0 alone is filtered. A filter has a layer of weights for "
    "every channel, and its products with all of them add up.",
)
def only_the_first_channel(X, F, b, stride, padding):
    return convolved(X[:, :1], F[:, :1], b, stride, padding)[0], convolved(X, F, b, stride, padding)[1]


@mistake(
    "conv2d_forward",
    caught_by="leaves_arguments_alone",
    says="X itself is changed: an operation in place (`*=`, `+=`, `X[...] = …`) writes into the caller's images.",
)
def images_changed_in_place(X, F, b, stride, padding):
    out, cache = convolved(X, F, b, stride, padding)
    cache = (cache[0].clone(), *cache[1:])
    X -= X.mean()
    return out, cache


@mistake(
    "conv2d_forward",
    caught_by="keeps_form",
    says="out is made with `torch.zeros(shape)`, which is float32 whatever X is. Use `X.new_zeros(shape)` or "
    "`dtype=X.dtype`.",
)
def maps_in_float32(X, F, b, stride, padding):
    out, cache = convolved(X, F, b, stride, padding)
    maps = torch.zeros(out.shape)
    maps += out
    return maps, cache


@mistake(
    "conv2d_forward",
    caught_by=("cross_correlation", "stride_and_padding_together", "smallest_sizes"),
    says="The filters are taken for squares of kh × kh entries. kw may be another number: `kh, kw = F.shape[2:]`.",
)
def filters_taken_for_squares(X, F, b, stride, padding):
    kh = F.shape[2]
    square = functional.pad(F, (0, max(kh - F.shape[3], 0)))[..., :kh]
    return convolved(X, square, b, stride, padding)[0], convolved(X, F, b, stride, padding)[1]


@mistake(
    "conv2d_forward",
    caught_by="smallest_sizes",
    says="`squeeze()` takes every axis of length one away, so for a single image the result has three axes instead of "
    "four. One image is a set of images too.",
)
def single_image_squeezed(X, F, b, stride, padding):
    out, cache = convolved(X, F, b, stride, padding)
    return out.squeeze(0), cache


@mistake(
    "conv2d_backward",
    caught_by="gradient_of_F",
    says="In grad_F the roles of images and gradient are exchanged: it is the images that slide under grad_out, so "
    "grad_F[k, c, i, j] sums X at row r + i, column s + j times grad_out at (r, s). Yours comes out turned by "
    "180°.",
)
def correlation_arguments_reversed(grad_out, cache):
    return (
        cut(gradient_of_images(grad_out, cache), cache[4]),
        gradient_of_filters(grad_out, cache).flip(2, 3),
        (grad_out.sum((0, 2, 3))),
    )


@mistake(
    "conv2d_backward",
    caught_by="gradient_of_X",
    says="In grad_X the filters are turned by 180°. An output pixel came from the window below the filter as it "
    "stands, so its gradient goes back through the filter as it stands (turned only if you slide it over "
    "grad_out).",
)
def gradient_through_flipped_filters(grad_out, cache):
    cols, shape, F, stride, padding = cache
    turned = (cols, shape, F.flip(2, 3), stride, padding)
    grad_X = cut(gradient_of_images(grad_out, turned), padding)
    return grad_X, gradient_of_filters(grad_out, cache), grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by=("gradient_of_X", "strides_back"),
    says="The gradients of several windows at one pixel are assigned, not added: a pixel that several windows see "
    "gets the sum.",
)
def gradients_of_windows_assigned(grad_out, cache):
    _, shape, F, stride, padding = cache
    cols = torch.einsum("nfhw,fcij->ncijhw", grad_out, F).flatten(4).flatten(1, 3)
    grad_X = cut(added_up(cols, shape, *F.shape[2:], stride, padding, assign=True), padding)
    return grad_X, gradient_of_filters(grad_out, cache), grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by=("padding_back", "stride_and_padding_together"),
    says="grad_X still has the padding around it. The zeros were no part of X: cut their gradient off.",
)
def gradient_keeps_the_padding(grad_out, cache):
    return gradient_of_images(grad_out, cache), gradient_of_filters(grad_out, cache), grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by=("padding_back", "stride_and_padding_together"),
    says="The padding is cut off at the wrong side: the first and the last `padding` rows and columns are dropped.",
)
def padding_cut_at_the_end(grad_out, cache):
    H, W = cache[1][2:]
    grad_X = gradient_of_images(grad_out, cache)[:, :, :H, :W]
    return grad_X, gradient_of_filters(grad_out, cache), grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by=("gradient_of_X", "keeps_form", "smallest_sizes"),
    says="`[:, :, p:-p, p:-p]` is empty where p = 0, because −0 is 0, and so is grad_X. Write the end as p + H: "
    "`[:, :, p : p + H, p : p + W]`.",
)
def gradient_cut_by_minus_zero(grad_out, cache):
    p = cache[4]
    grad_X = gradient_of_images(grad_out, cache)[:, :, p:-p, p:-p]
    return grad_X, gradient_of_filters(grad_out, cache), grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by="strides_back",
    says="The stride is left out on the way back: output (r, s) belongs to the window that starts at (r·stride, "
    "s·stride).",
)
def stride_ignored_on_the_way_back(grad_out, cache):
    _, shape, F, _, padding = cache
    N, C, H, W = shape
    grad_X = grad_out.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    rows, columns = grad_out.shape[2:]
    for i in range(F.shape[2]):
        for j in range(F.shape[3]):
            piece = torch.einsum("nfhw,fc->nchw", grad_out, F[:, :, i, j])
            grad_X[:, :, i : i + rows, j : j + columns] += piece
    return cut(grad_X, padding), gradient_of_filters(grad_out, cache), grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by=("gradient_of_b", "keeps_form"),
    says="grad_b is summed over the images only. A bias is added at every pixel of its map, so its gradient is the "
    "sum over images, rows and columns: shape (F,).",
)
def bias_gradient_summed_over_images(grad_out, cache):
    return cut(gradient_of_images(grad_out, cache), cache[4]), gradient_of_filters(grad_out, cache), grad_out.sum(0)


@mistake(
    "conv2d_backward",
    caught_by="gradient_of_b",
    says="grad_b is a mean. The loss has its own mean inside grad_out; here the gradient is a sum.",
)
def bias_gradient_averaged(grad_out, cache):
    return (
        cut(gradient_of_images(grad_out, cache), cache[4]),
        gradient_of_filters(grad_out, cache),
        grad_out.mean((0, 2, 3)),
    )


@mistake(
    "conv2d_backward",
    caught_by=("gradient_of_F", "smallest_sizes"),
    says="grad_F is divided by the number of images. grad_out already holds the gradient of the mean loss.",
)
def filter_gradient_divided_by_n(grad_out, cache):
    grad_F = gradient_of_filters(grad_out, cache) / len(grad_out)
    return cut(gradient_of_images(grad_out, cache), cache[4]), grad_F, grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by=("gradient_of_F", "smallest_sizes"),
    says="grad_F is computed from the last image only (assigned in the loop over images). The gradients of all "
    "images add up.",
)
def filter_gradient_of_the_last_image(grad_out, cache):
    grad_F = (grad_out[-1].flatten(1) @ cache[0][-1].T).reshape(cache[2].shape)
    return cut(gradient_of_images(grad_out, cache), cache[4]), grad_F, grad_out.sum((0, 2, 3))


@mistake(
    "conv2d_backward",
    caught_by="keeps_form",
    says="The gradients are made with `torch.zeros(shape)`, which is float32 whatever came in.",
)
def gradients_in_float32(grad_out, cache):
    grad_X, grad_F = cut(gradient_of_images(grad_out, cache), cache[4]), gradient_of_filters(grad_out, cache)
    return grad_X.float(), grad_F.float(), grad_out.sum((0, 2, 3)).float()


@mistake(
    "conv2d_backward",
    caught_by="takes_any_layout",
    says="`view` needs a grad_out that is contiguous in memory, and the one that arrives may be a slice of something "
    "larger. `reshape` works on both.",
)
def gradient_viewed(grad_out, cache):
    flat = grad_out.view(len(grad_out), grad_out.shape[1], -1)
    return cut(gradient_of_images(grad_out, cache), cache[4]), gradient_of_filters(grad_out, cache), flat.sum((0, 2))


@mistake(
    "conv2d_backward",
    caught_by="caches_are_independent",
    says="The cache is used up or changed by the first backward pass (`pop`, `clear`, an operation in place), so the "
    "second one, with the same cache, gives something else.",
)
def cache_changed_by_backward(grad_out, cache):
    grad_X, grad_F = cut(gradient_of_images(grad_out, cache), cache[4]), gradient_of_filters(grad_out, cache)
    cache[0].mul_(2)
    return grad_X, grad_F, grad_out.sum((0, 2, 3))


# --- Max pooling -----------------------------------------------------------------------------------------------------


def pooled(X, k, stride):
    """The largest of each window, and a cache."""
    out, where = windows_of(X, k, k, stride).flatten(-2).max(-1)
    return out, (X, where, k, stride)


def gradient_of_pooling(grad_out, cache, assign=False):
    """∂ / ∂ X of max pooling."""
    X, where, k, stride = cache
    H, W = grad_out.shape[2:]
    grad_X = grad_out.new_zeros(X.shape)
    for i in range(k):
        for j in range(k):
            place = grad_X[:, :, i : i + stride * H : stride, j : j + stride * W : stride]
            chosen = where == i * k + j
            if assign:
                place.copy_(torch.where(chosen, grad_out, place))
            else:
                place.add_(grad_out * chosen)
    return grad_X


@mistake(
    "max_pool2d_forward",
    caught_by=("largest_of_each_window", "negative_values", "smallest_sizes"),
    says="This is the mean of each window; its largest value is asked for.",
)
def pooled_by_mean(X, k, stride):
    return windows_of(X, k, k, stride).mean((-2, -1)), pooled(X, k, stride)[1]


@mistake(
    "max_pool2d_forward",
    caught_by="stride_is_not_k",
    says="`stride` is not used: the windows are k pixels apart, whatever stride says.",
)
def pooled_with_stride_k(X, k, stride):
    return pooled(X, k, k)


@mistake(
    "max_pool2d_forward",
    caught_by="left_over_is_left_out",
    says="The size is rounded up (ceil): rows and columns that do not fill a window get an output too. Leave them "
    "out: floor.",
)
def pooled_rounded_up(X, k, stride):
    more = [-(n - k) % stride for n in X.shape[2:]]
    wider = functional.pad(X, (0, more[1], 0, more[0]), value=-math.inf)
    out, (_, where, _, _) = pooled(wider, k, stride)
    return out, (X, where, k, stride)


@mistake(
    "max_pool2d_forward",
    caught_by="negative_values",
    says="The search for the maximum starts from 0, which beats every negative value. Start from −∞ or from the "
    "window's first pixel.",
)
def pooled_from_zero(X, k, stride):
    out, cache = pooled(X, k, stride)
    return out.clamp(min=0), cache


@mistake(
    "max_pool2d_forward",
    caught_by=("largest_of_each_window", "negative_values"),
    says="The maximum is taken over the channels too. Every channel is pooled for itself.",
)
def pooled_over_channels(X, k, stride):
    out, cache = pooled(X, k, stride)
    return out.amax(1, keepdim=True).expand_as(out).clone(), cache


@mistake(
    "max_pool2d_forward",
    caught_by="negative_values",
    says="The largest of the magnitudes is taken: `abs` makes a large negative value win.",
)
def pooled_by_magnitude(X, k, stride):
    return pooled(X.abs(), k, stride)[0], pooled(X, k, stride)[1]


@mistake(
    "max_pool2d_forward",
    caught_by=("largest_of_each_window", "smallest_sizes"),
    says="H_out and W_out are exchanged: H_out is the number of rows of the result, W_out that of its columns.",
)
def pooled_rows_and_columns_exchanged(X, k, stride):
    out, cache = pooled(X, k, stride)
    return out.reshape(*out.shape[:2], out.shape[3], out.shape[2]), cache


@mistake(
    "max_pool2d_forward",
    caught_by="left_over_is_left_out",
    says="The windows are cut with `reshape` from H = (H/k)·k rows, which fits only where k divides H and W.",
)
def pooled_by_reshape(X, k, stride):
    N, C, H, W = X.shape
    if stride != k:
        return pooled(X, k, stride)
    return X.reshape(N, C, H // k, k, W // k, k).amax((3, 5)), pooled(X, k, stride)[1]


@mistake(
    "max_pool2d_backward",
    caught_by=("one_pixel_among_ties", "ties_of_overlapping_windows"),
    says="Every pixel that equals the maximum gets the gradient, so among ties it is counted several times. One of "
    "them gets it.",
)
def all_ties_get_the_gradient(grad_out, cache):
    X, _, k, stride = cache
    out = windows_of(X, k, k, stride).amax((-2, -1))
    H, W = grad_out.shape[2:]
    grad_X = grad_out.new_zeros(X.shape)
    for i in range(k):
        for j in range(k):
            rows, columns = slice(i, i + stride * H, stride), slice(j, j + stride * W, stride)
            grad_X[:, :, rows, columns] += grad_out * (X[:, :, rows, columns] == out)
    return grad_X


@mistake(
    "max_pool2d_backward",
    caught_by=("one_pixel_among_ties", "ties_of_overlapping_windows"),
    says="Ties share the gradient. Exactly one pixel of a window is to get it, whole.",
)
def ties_share_the_gradient(grad_out, cache):
    X, _, k, stride = cache
    out = windows_of(X, k, k, stride).amax((-2, -1))
    H, W = grad_out.shape[2:]
    grad_X = grad_out.new_zeros(X.shape)
    count = (windows_of(X, k, k, stride) == out[..., None, None]).sum((-2, -1))
    for i in range(k):
        for j in range(k):
            rows, columns = slice(i, i + stride * H, stride), slice(j, j + stride * W, stride)
            grad_X[:, :, rows, columns] += grad_out / count * (X[:, :, rows, columns] == out)
    return grad_X


@mistake(
    "max_pool2d_backward",
    caught_by=("overlapping_windows_add", "ties_of_overlapping_windows"),
    says="Where windows overlap, the gradient is assigned (`=`). A pixel that is the largest of several windows gets "
    "the sum of their gradients.",
)
def overlapping_windows_assigned(grad_out, cache):
    return gradient_of_pooling(grad_out, cache, assign=True)


@mistake(
    "max_pool2d_backward",
    caught_by=("overlapping_windows_add", "pixels_in_no_window", "ties_of_overlapping_windows"),
    says="The place of the maximum is taken as if windows were k apart: with another stride, window (r, s) starts at "
    "(r·stride, s·stride).",
)
def gradient_placed_with_stride_k(grad_out, cache):
    X, where, k, _ = cache
    H, W = grad_out.shape[2:]
    wide = grad_out.new_zeros(*X.shape[:2], max(X.shape[2], k * H), max(X.shape[3], k * W))
    for i in range(k):
        for j in range(k):
            wide[:, :, i : i + k * H : k, j : j + k * W : k] += grad_out * (where == i * k + j)
    return wide[:, :, : X.shape[2], : X.shape[3]]


@mistake(
    "max_pool2d_backward",
    caught_by=(
        "largest_pixel_gets_the_gradient",
        "one_pixel_among_ties",
        "ties_of_overlapping_windows",
    ),
    says="The gradient is spread over the whole window, as for average pooling. Only the largest pixel had an "
    "influence on the output, so it alone gets the gradient.",
)
def gradient_spread_over_the_window(grad_out, cache):
    X, _, k, stride = cache
    H, W = grad_out.shape[2:]
    grad_X = grad_out.new_zeros(X.shape)
    for i in range(k):
        for j in range(k):
            grad_X[:, :, i : i + stride * H : stride, j : j + stride * W : stride] += grad_out / k**2
    return grad_X


@mistake(
    "max_pool2d_backward",
    caught_by=(
        "largest_pixel_gets_the_gradient",
        "one_pixel_among_ties",
        "ties_of_overlapping_windows",
        "smallest_sizes",
    ),
    says="The place of the maximum is the same for all images: the argmax was taken over the batch as well. Every "
    "window of every image has its own.",
)
def one_place_for_all_images(grad_out, cache):
    X, where, k, stride = cache
    return gradient_of_pooling(grad_out, (X, where[:1].expand_as(where), k, stride))


@mistake(
    "max_pool2d_backward",
    caught_by=(
        "largest_pixel_gets_the_gradient",
        "one_pixel_among_ties",
        "ties_of_overlapping_windows",
    ),
    says="Row and column of the largest pixel are exchanged: the index within a window is row·k + column.",
)
def row_and_column_exchanged(grad_out, cache):
    X, where, k, stride = cache
    return gradient_of_pooling(grad_out, (X, where % k * k + where // k, k, stride))


@mistake(
    "max_pool2d_backward",
    caught_by=("largest_pixel_gets_the_gradient", "ties_of_overlapping_windows", "keeps_precision"),
    says="The largest pixel of a window gets 1. By the chain rule that 1 is multiplied by the window's entry of "
    "grad_out.",
)
def winners_get_one(grad_out, cache):
    return gradient_of_pooling(torch.ones_like(grad_out), cache)


@mistake(
    "max_pool2d_backward",
    caught_by="largest_pixel_gets_the_gradient",
    says="The sign is wrong: the largest pixel gets the entry of grad_out as it is.",
)
def gradient_subtracted(grad_out, cache):
    return -gradient_of_pooling(grad_out, cache)


# --- Transposed convolution ------------------------------------------------------------------------------------------


def stamped(X, F, b, stride):
    """The transposed convolution without padding."""
    N, _, H, W = X.shape
    _, C_out, kh, kw = F.shape
    cols = torch.einsum("nchw,cfij->nfijhw", X, F).flatten(4).flatten(1, 3)
    shape = (N, C_out, (H - 1) * stride + kh, (W - 1) * stride + kw)
    return added_up(cols, shape, kh, kw, stride, 0) + b[:, None, None]


@mistake(
    "conv_transpose2d",
    caught_by=("padding_crops", "stride_and_padding_together"),
    says="The padding is not cut off. What a convolution pads, its transpose crops: `padding` rows and columns less "
    "on every side.",
)
def transposed_without_cropping(X, F, b, stride, padding):
    return stamped(X, F, b, stride)


@mistake(
    "conv_transpose2d",
    caught_by=("padding_crops", "stride_and_padding_together"),
    says="The padding is added around X, as in a convolution. A transposed convolution crops its result by it.",
)
def transposed_padding_added(X, F, b, stride, padding):
    return stamped(padded(X, padding), F, b, stride)


@mistake(
    "conv_transpose2d",
    caught_by="stamps_add_up",
    says="The stamps are turned by 180°. A pixel stamps the filter as it stands; only the equivalent convolution of "
    "a padded X has it turned.",
)
def stamps_flipped(X, F, b, stride, padding):
    return cut(stamped(X, F.flip(2, 3), b, stride), padding)


@mistake(
    "conv_transpose2d",
    caught_by="stamps_add_up",
    says="Where stamps overlap, the last one wins. They add up.",
)
def stamps_assigned(X, F, b, stride, padding):
    N, _, H, W = X.shape
    _, C_out, kh, kw = F.shape
    cols = torch.einsum("nchw,cfij->nfijhw", X, F).flatten(4).flatten(1, 3)
    shape = (N, C_out, (H - 1) * stride + kh, (W - 1) * stride + kw)
    return cut(added_up(cols, shape, kh, kw, stride, 0, assign=True) + b[:, None, None], padding)


@mistake(
    "conv_transpose2d",
    caught_by="bias_is_added",
    says="b is not added.",
)
def transposed_without_bias(X, F, b, stride, padding):
    return cut(stamped(X, F, 0 * b, stride), padding)


@mistake(
    "conv_transpose2d",
    caught_by="bias_is_added",
    says="b is stamped along with every pixel, so it is added several times where stamps overlap. It is added once "
    "to every pixel of the result.",
)
def bias_in_every_stamp(X, F, b, stride, padding):
    ones = torch.ones_like(X[:1, :1])
    counts = stamped(ones, torch.ones_like(F[:1, :1]), torch.zeros_like(b[:1]), stride)
    return cut(stamped(X, F, 0 * b, stride) + counts * b[:, None, None], padding)


@mistake(
    "conv_transpose2d",
    caught_by=("stride_spreads_the_stamps", "stride_and_padding_together", "smallest_sizes"),
    says="The stride shrinks the result, as in a convolution. In its transpose the stamps lie `stride` pixels apart.",
)
def transposed_stride_divides(X, F, b, stride, padding):
    return cut(stamped(X, F, b, 1)[:, :, ::stride, ::stride], padding)


@mistake(
    "conv_transpose2d",
    caught_by="stride_spreads_the_stamps",
    says="The pixels are repeated `stride` times; between them there are to be zeros, so that each stamps once.",
)
def pixels_repeated(X, F, b, stride, padding):
    H, W = X.shape[2:]
    wide = X.repeat_interleave(stride, 2).repeat_interleave(stride, 3)
    wide = wide[:, :, : (H - 1) * stride + 1, : (W - 1) * stride + 1]
    return cut(stamped(wide, F, b, 1), padding)


@mistake(
    "conv_transpose2d",
    caught_by="bias_is_added",
    says="The bias is missing where no stamp has been. With a stride larger than the kernel there are gaps between the "
    "stamps, and the bias is added there too.",
)
def bias_on_the_stamps_only(X, F, b, stride, padding):
    whole = stamped(X, F, torch.zeros_like(b), stride)
    touched = stamped(torch.ones_like(X), torch.ones_like(F), torch.zeros_like(b), stride) > 0
    return cut(whole + touched * b[:, None, None], padding)


@mistake(
    "conv_transpose2d",
    caught_by=("stamps_add_up", "keeps_form", "smallest_sizes"),
    says="`[:, :, p:-p, p:-p]` is empty where p = 0, because −0 is 0. Write the end as p + H_out.",
)
def cropped_by_minus_zero(X, F, b, stride, padding):
    return stamped(X, F, b, stride)[:, :, padding:-padding, padding:-padding]


# --- Receptive field -------------------------------------------------------------------------------------------------


@mistake(
    "receptive_field",
    caught_by=("dilations", "everything_together"),
    says="The dilations are not used: with dilation d the taps lie d apart, so a kernel spans (kernel − 1)·d + 1.",
)
def field_without_dilation(layers):
    size, jump = 1, 1
    for kernel, stride, _ in layers:
        size += (kernel - 1) * jump
        jump *= stride
    return size


@mistake(
    "receptive_field",
    caught_by=("kernels", "strides", "dilations", "everything_together"),
    says="The kernels are multiplied. Each layer adds (kernel − 1)·dilation times the product of the strides before "
    "it.",
)
def field_as_a_product(layers):
    size = 1
    for kernel, _, _ in layers:
        size *= kernel
    return size


@mistake(
    "receptive_field",
    caught_by=("strides", "everything_together"),
    says="The strides are not used: after a stride of 2 neighbouring pixels of a map lie two pixels of the image "
    "apart, so all later layers see twice as far.",
)
def field_without_strides(layers):
    return 1 + sum((kernel - 1) * dilation for kernel, _, dilation in layers)


@mistake(
    "receptive_field",
    caught_by=("strides", "everything_together"),
    says="A layer's own stride widens its own field here. It counts only for the layers after it.",
)
def own_stride_counts(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        jump *= stride
        size += (kernel - 1) * dilation * jump
    return size


@mistake(
    "receptive_field",
    caught_by=("dilations", "everything_together"),
    says="The dilation multiplies the whole kernel; there are only kernel − 1 gaps between its taps.",
)
def dilation_times_kernel(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += (kernel * dilation - 1) * jump
        jump *= stride
    return size


@mistake(
    "receptive_field",
    caught_by=("strides", "everything_together"),
    says="The layers are taken from the last to the first with the formula for the other direction. The list begins "
    "with the layer next to the image.",
)
def field_from_the_wrong_end(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers[::-1]:
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size


@mistake(
    "receptive_field",
    caught_by=("strides", "everything_together"),
    says="Strides replace each other instead of multiplying: after strides of 2 and 3 a step is 6 pixels.",
)
def only_the_last_stride(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump = stride
    return size


@mistake(
    "receptive_field",
    caught_by="no_layers",
    says="Without layers the result is 0. A pixel sees itself: start from 1.",
)
def nothing_sees_nothing(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size if layers else 0


@mistake(
    "receptive_field",
    caught_by="keeps_form",
    says="The result is a float; it is a number of pixels, an integer.",
)
def field_as_a_float(layers):
    size, jump = 1.0, 1
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size


@mistake(
    "receptive_field",
    caught_by="leaves_arguments_alone",
    says="The list of layers is emptied (`pop`) while it is read: the caller's list is gone.",
)
def layers_popped(layers):
    size, jump = 1, 1
    while layers:
        kernel, stride, dilation = layers.pop(0)
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size


@mistake(
    "receptive_field",
    caught_by="kernels",
    says="Each layer adds its whole kernel, k · dilation · jump. It adds k − 1 taps: the first one was seen already.",
)
def whole_kernels_added(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += kernel * dilation * jump
        jump *= stride
    return size


@mistake(
    "receptive_field",
    caught_by="kernels",
    says="A kernel of 1 widens the field here. It has no gap between taps: (k − 1) is 0.",
)
def kernels_of_one_widen(layers):
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += max(kernel - 1, 1) * dilation * jump
        jump *= stride
    return size


# --- The patchify net ------------------------------------------------------------------------------------------------


def net(patches, params, relu=torch.relu, hidden_relu=torch.relu):
    """Scores of the patchify net, and a cache."""
    maps = relu(patches @ params["F"] + params["b"])
    hidden = hidden_relu(maps.flatten(1) @ params["W1"] + params["b1"])
    scores = hidden @ params["W2"] + params["b2"]
    return scores, (patches, maps, hidden, scores)


def net_gradients(y, params, cache, lam):
    """The gradients of the patchify net, and those of scores, hidden layer and maps."""
    patches, maps, hidden, scores = cache
    G = torch.softmax(scores, 1)
    G[torch.arange(len(y)), y] -= 1
    G = G / len(y)
    G_hidden = G @ params["W2"].T * (hidden > 0)
    G_maps = (G_hidden @ params["W1"].T).reshape(maps.shape) * (maps > 0)
    found = {
        "F": torch.einsum("npd,npf->df", patches, G_maps) + 2 * lam * params["F"],
        "b": G_maps.sum((0, 1)),
        "W1": maps.flatten(1).T @ G_hidden + 2 * lam * params["W1"],
        "b1": G_hidden.sum(0),
        "W2": hidden.T @ G + 2 * lam * params["W2"],
        "b2": G.sum(0),
    }
    return found, G, G_hidden, G_maps


@mistake(
    "patchify_net_forward",
    caught_by=("relu_after_the_convolution", "whole_net"),
    says="There is no ReLU after the convolution, so the first two layers collapse into one linear map.",
)
def no_relu_after_the_convolution(patches, params):
    return net(patches, params, relu=lambda z: z)


@mistake(
    "patchify_net_forward",
    caught_by=("relu_of_the_hidden_layer", "whole_net"),
    says="There is no ReLU after W1, so the last two layers collapse into one linear map.",
)
def no_relu_of_the_hidden_layer(patches, params):
    return net(patches, params, hidden_relu=lambda z: z)


@mistake(
    "patchify_net_forward",
    caught_by=("flattened_patch_by_patch", "whole_net"),
    says="The maps are laid out filter by filter (n_f, P). W1 expects them patch by patch: the n_f numbers of patch "
    "0 first.",
)
def flattened_filter_by_filter(patches, params):
    maps = torch.relu(patches @ params["F"] + params["b"])
    hidden = torch.relu(maps.transpose(1, 2).flatten(1) @ params["W1"] + params["b1"])
    scores = hidden @ params["W2"] + params["b2"]
    return scores, (patches, maps, hidden, scores)


@mistake(
    "patchify_net_forward",
    caught_by="nothing_after_the_last_layer",
    says="The result has gone through a softmax. Scores are what the last layer gives; the softmax belongs to the "
    "loss.",
)
def probabilities_for_scores(patches, params):
    scores, cache = net(patches, params)
    return torch.softmax(scores, 1), cache


@mistake(
    "patchify_net_forward",
    caught_by="nothing_after_the_last_layer",
    says="The scores have gone through a ReLU too. They may be negative.",
)
def relu_on_the_scores(patches, params):
    scores, cache = net(patches, params)
    return torch.relu(scores), cache


@mistake(
    "patchify_net_forward",
    caught_by=("biases_are_added", "whole_net"),
    says="The bias b of the filters is not added.",
)
def filters_without_bias(patches, params):
    return net(patches, {**params, "b": 0 * params["b"]})


@mistake(
    "patchify_net_forward",
    caught_by=("biases_are_added", "whole_net"),
    says="b1 is not added.",
)
def hidden_layer_without_bias(patches, params):
    return net(patches, {**params, "b1": 0 * params["b1"]})


@mistake(
    "patchify_net_forward",
    caught_by=("flattened_patch_by_patch", "whole_net"),
    says="The maps are averaged over the patches before W1 (each row of which belongs to one patch and one filter).",
)
def maps_averaged_over_patches(patches, params):
    maps = torch.relu(patches @ params["F"] + params["b"])
    mean = maps.mean(1, keepdim=True).expand_as(maps)
    hidden = torch.relu(mean.flatten(1) @ params["W1"] + params["b1"])
    scores = hidden @ params["W2"] + params["b2"]
    return scores, (patches, maps, hidden, scores)


@mistake(
    "patchify_net_forward",
    caught_by="leaves_arguments_alone",
    says="The biases are added with `+=`… to the parameters, or the patches are changed in place: the caller's "
    "arrays are not yours to write into.",
)
def parameters_changed_in_place(patches, params):
    result = net(patches, {k: v.clone() for k, v in params.items()})
    params["F"] *= 0.5
    return result


@mistake(
    "patchify_net_backward",
    caught_by="mean_over_examples",
    says="The gradients are not divided by N, though the cost is a mean over images.",
)
def net_gradients_summed(y, params, cache, lam):
    without = net_gradients(y, params, cache, 0.0)[0]
    return {k: len(y) * g + (2 * lam * params[k] if k in ("F", "W1", "W2") else 0) for k, g in without.items()}


@mistake(
    "patchify_net_backward",
    caught_by="regulariser",
    says="The regulariser contributes λF, λW1 and λW2; the gradient of λ ΣF² is 2λF.",
)
def net_regulariser_halved(y, params, cache, lam):
    return net_gradients(y, params, cache, lam / 2)[0]


@mistake(
    "patchify_net_backward",
    caught_by="regulariser",
    says="The regulariser is in the cost but not in the gradients.",
)
def net_regulariser_forgotten(y, params, cache, lam):
    return net_gradients(y, params, cache, 0.0)[0]


@mistake(
    "patchify_net_backward",
    caught_by="regulariser",
    says="The filters F are not regularised; the cost has ΣF² as well as ΣW1² and ΣW2².",
)
def filters_not_regularised(y, params, cache, lam):
    found = net_gradients(y, params, cache, lam)[0]
    return {**found, "F": found["F"] - 2 * lam * params["F"]}


@mistake(
    "patchify_net_backward",
    caught_by="biases_are_not_regularised",
    says="The biases are regularised too. Only F, W1 and W2 are.",
)
def net_biases_regularised(y, params, cache, lam):
    found = net_gradients(y, params, cache, lam)[0]
    return {k: g + (2 * lam * params[k] if k in ("b", "b1", "b2") else 0) for k, g in found.items()}


@mistake(
    "patchify_net_backward",
    caught_by="hidden_layer",
    says="The gradient passes the ReLU after W1 unchanged. Where that ReLU gave 0, its gradient is 0.",
)
def hidden_relu_not_masked(y, params, cache, lam):
    patches, maps, hidden, _ = cache
    _, G, _, _ = net_gradients(y, params, cache, 0.0)
    G_hidden = G @ params["W2"].T
    G_maps = (G_hidden @ params["W1"].T).reshape(maps.shape) * (maps > 0)
    return {
        "F": torch.einsum("npd,npf->df", patches, G_maps) + 2 * lam * params["F"],
        "b": G_maps.sum((0, 1)),
        "W1": maps.flatten(1).T @ G_hidden + 2 * lam * params["W1"],
        "b1": G_hidden.sum(0),
        "W2": hidden.T @ G + 2 * lam * params["W2"],
        "b2": G.sum(0),
    }


@mistake(
    "patchify_net_backward",
    caught_by=("filters", "bias_of_the_filters"),
    says="The gradient passes the ReLU after the convolution unchanged. Where that ReLU gave 0, its gradient is 0.",
)
def map_relu_not_masked(y, params, cache, lam):
    patches, maps, _, _ = cache
    found, _, G_hidden, _ = net_gradients(y, params, cache, lam)
    G_maps = (G_hidden @ params["W1"].T).reshape(maps.shape)
    grad_F = torch.einsum("npd,npf->df", patches, G_maps) + 2 * lam * params["F"]
    return {**found, "F": grad_F, "b": G_maps.sum((0, 1))}


@mistake(
    "patchify_net_backward",
    caught_by=("filters", "bias_of_the_filters"),
    says="The gradient that comes back through W1 is laid out filter by filter, (N, n_f, P), where the forward pass "
    "had laid the maps out patch by patch.",
)
def gradient_laid_out_filter_by_filter(y, params, cache, lam):
    patches, maps, _, _ = cache
    found, _, G_hidden, _ = net_gradients(y, params, cache, lam)
    N, P, n_f = maps.shape
    G_maps = (G_hidden @ params["W1"].T).reshape(N, n_f, P).transpose(1, 2) * (maps > 0)
    grad_F = torch.einsum("npd,npf->df", patches, G_maps) + 2 * lam * params["F"]
    return {**found, "F": grad_F, "b": G_maps.sum((0, 1))}


@mistake(
    "patchify_net_backward",
    caught_by="filters",
    says="The gradient of F is averaged over the patches. The same filter is applied to every patch, so their "
    "gradients add up.",
)
def filter_gradient_averaged_over_patches(y, params, cache, lam):
    found = net_gradients(y, params, cache, lam)[0]
    P = cache[0].shape[1]
    return {**found, "F": net_gradients(y, params, cache, 0.0)[0]["F"] / P + 2 * lam * params["F"]}


@mistake(
    "patchify_net_backward",
    caught_by="bias_of_the_filters",
    says="The gradient of b is summed over the images only, or averaged over the patches. b is added to every patch, "
    "so its gradient is the sum over images and patches.",
)
def filter_bias_averaged_over_patches(y, params, cache, lam):
    found = net_gradients(y, params, cache, lam)[0]
    return {**found, "b": found["b"] / cache[0].shape[1]}


@mistake(
    "patchify_net_backward",
    caught_by=("last_layer", "large_scores_do_not_overflow"),
    says="The sign of softmax(scores) − one-hot is flipped, so all gradients point uphill.",
)
def net_sign_flipped(y, params, cache, lam):
    without = net_gradients(y, params, cache, 0.0)[0]
    return {k: -g + (2 * lam * params[k] if k in ("F", "W1", "W2") else 0) for k, g in without.items()}


@mistake(
    "patchify_net_backward",
    caught_by="large_scores_do_not_overflow",
    says="exp(score) overflows for large scores and inf / inf is NaN. Subtract each row's largest score first.",
)
def net_softmax_overflows(y, params, cache, lam):
    scores = cache[3]
    found = net_gradients(y, params, cache, lam)[0]
    plain = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
    off = ((plain - torch.softmax(scores, 1)) / len(y)).sum(0)
    return {k: g + off.sum() if k != "b2" else g + off for k, g in found.items()}


@mistake(
    "patchify_net_backward",
    caught_by="caches_are_independent",
    says="The cache's own scores are overwritten (`G = scores; G[...] -= 1`), so a second backward pass with the "
    "same cache gives something else. Work on a copy.",
)
def cached_scores_overwritten(y, params, cache, lam):
    found = net_gradients(y, params, cache, lam)[0]
    cache[3].copy_(torch.softmax(cache[3], 1))
    return found


@mistake(
    "patchify_net_backward",
    caught_by="large_scores_do_not_overflow",
    says="The maximum of all scores is subtracted. Where another image has much larger scores, a whole row becomes "
    "0 / 0 = nan: subtract the maximum of each row.",
)
def maximum_of_all_scores(y, params, cache, lam):
    patches, maps, hidden, scores = cache
    e = torch.exp(scores - scores.max())
    P = e / e.sum(1, keepdim=True)
    return net_gradients(y, params, (patches, maps, hidden, P.log()), lam)[0]


@mistake(
    "patchify_net_backward",
    caught_by=("last_layer", "large_scores_do_not_overflow"),
    says="The one-hot labels are not subtracted: the gradient with respect to the scores is (P − Y) / N, with the "
    "probabilities P.",
)
def labels_not_subtracted(y, params, cache, lam):
    patches, maps, hidden, scores = cache
    G = torch.softmax(scores, 1) / len(y)
    G_hidden = G @ params["W2"].T * (hidden > 0)
    G_maps = (G_hidden @ params["W1"].T).reshape(maps.shape) * (maps > 0)
    return {
        "F": torch.einsum("npd,npf->df", patches, G_maps) + 2 * lam * params["F"],
        "b": G_maps.sum((0, 1)),
        "W1": maps.flatten(1).T @ G_hidden + 2 * lam * params["W1"],
        "b1": G_hidden.sum(0),
        "W2": hidden.T @ G + 2 * lam * params["W2"],
        "b2": G.sum(0),
    }


# --- Labels and learning rates ---------------------------------------------------------------------------------------


def smooth(y, K, on, off):
    """Targets with these values for the true class and the others."""
    targets = torch.full((len(y), K), off)
    targets[torch.arange(len(y)), y] = on
    return targets


@mistake(
    "smooth_labels",
    caught_by="other_classes",
    says="ε is shared by the K − 1 wrong classes. It is mixed with the uniform distribution over all K, the true "
    "class included: ε / K each.",
)
def shared_by_the_wrong_classes(y, K, epsilon):
    return smooth(y, K, 1 - epsilon, epsilon / (K - 1))


@mistake(
    "smooth_labels",
    caught_by=("true_class", "rows_sum_to_one"),
    says="The true class gets 1 − ε; its own share ε / K of the uniform distribution is missing, so rows do not add "
    "up to 1.",
)
def own_share_missing(y, K, epsilon):
    return smooth(y, K, 1 - epsilon, epsilon / K)


@mistake(
    "smooth_labels",
    caught_by=("true_class", "rows_sum_to_one"),
    says="ε / K is added to the one-hot labels, which keep their whole 1: rows add up to 1 + ε.",
)
def one_hot_not_scaled(y, K, epsilon):
    return smooth(y, K, 1 + epsilon / K, epsilon / K)


@mistake(
    "smooth_labels",
    caught_by=("other_classes", "rows_sum_to_one"),
    says="Every wrong class gets ε itself, not ε / K.",
)
def epsilon_for_every_class(y, K, epsilon):
    return smooth(y, K, 1 - epsilon + epsilon / K, epsilon)


@mistake(
    "smooth_labels",
    caught_by=("other_classes", "no_smoothing"),
    says="ε and 1 − ε are exchanged: the one-hot labels get the weight 1 − ε.",
)
def epsilon_exchanged(y, K, epsilon):
    return smooth(y, K, epsilon + (1 - epsilon) / K, (1 - epsilon) / K)


@mistake(
    "smooth_labels",
    caught_by=("keeps_form", "two_classes_and_one_label"),
    says="The number of classes is taken from the labels (`y.max() + 1`, or one_hot without K). A batch need not "
    "have the last class.",
)
def classes_counted_from_the_labels(y, K, epsilon):
    one_hot = functional.one_hot(y).float()
    return (1 - epsilon) * one_hot + epsilon / K


@mistake(
    "smooth_labels",
    caught_by="keeps_form",
    says="The targets are float64. Where no float tensor comes in, float32 comes out.",
)
def targets_in_float64(y, K, epsilon):
    return smooth(y, K, 1 - epsilon + epsilon / K, epsilon / K).double()


@mistake(
    "cyclical_lr_doubling",
    caught_by=("each_cycle_is_twice_as_long", "far_cycles", "shortest_cycles"),
    says="All cycles are equally long. Each is twice as long as the one before.",
)
def cycles_of_equal_length(t, n_1, lr_min, lr_max):
    position = t % (2 * n_1)
    return lr_min + (lr_max - lr_min) * min(position, 2 * n_1 - position) / n_1


@mistake(
    "cyclical_lr_doubling",
    caught_by=("each_cycle_is_twice_as_long", "far_cycles", "shortest_cycles"),
    says="The cycles grow by 2·n_1 each (2, 4, 6, … times n_1). They double: 2, 4, 8, … times n_1.",
)
def cycles_growing_evenly(t, n_1, lr_min, lr_max):
    half = n_1
    while t >= 2 * half:
        t -= 2 * half
        half += n_1
    return lr_min + (lr_max - lr_min) * min(t, 2 * half - t) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by="first_cycle",
    says="The first cycle is n_1 updates long. n_1 is the length of its way up; with the way down it is 2·n_1 long.",
)
def first_cycle_half_as_long(t, n_1, lr_min, lr_max):
    length = n_1
    while t >= length:
        t -= length
        length *= 2
    return lr_min + (lr_max - lr_min) * min(t, length - t) / (length / 2)


@mistake(
    "cyclical_lr_doubling",
    caught_by=("each_cycle_is_twice_as_long", "far_cycles", "shortest_cycles"),
    says="The new cycle starts one update late (`>` for `>=`): update 2·n_1 is already the first of the second cycle.",
)
def cycle_starts_late(t, n_1, lr_min, lr_max):
    half = n_1
    while t > 2 * half:
        t -= 2 * half + 1
        half *= 2
    return lr_min + (lr_max - lr_min) * min(t, 2 * half - t) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by="first_cycle",
    says="The first cycle is two updates long, whatever n_1 is. It has n_1 updates up and n_1 down.",
)
def cycles_without_n_1(t, n_1, lr_min, lr_max):
    half = 1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return lr_min + (lr_max - lr_min) * min(t, 2 * half - t) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by="first_cycle",
    says="lr_min is added twice: what rises is lr_max − lr_min, on top of lr_min.",
)
def lr_min_added_twice(t, n_1, lr_min, lr_max):
    half = n_1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return lr_min + lr_max * min(t, 2 * half - t) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by="first_cycle",
    says="The learning rate jumps back to lr_min instead of falling: a saw tooth, not a triangle.",
)
def saw_tooth(t, n_1, lr_min, lr_max):
    half = n_1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return lr_min + (lr_max - lr_min) * (t % half if t != half else half) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by=("starts_at_lr_min", "first_cycle", "shortest_cycles"),
    says="The cycle starts at lr_max. It starts at lr_min and has lr_max in its middle.",
)
def starts_at_the_top(t, n_1, lr_min, lr_max):
    half = n_1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return lr_max - (lr_max - lr_min) * min(t, 2 * half - t) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by="far_cycles",
    says="Only the first few cycles are written out; training that runs longer falls off their end. A loop, or a "
    "logarithm, finds any cycle.",
)
def three_cycles_only(t, n_1, lr_min, lr_max):
    half = n_1
    for _ in range(4):
        if t >= 2 * half:
            t -= 2 * half
            half *= 2
    return lr_min + (lr_max - lr_min) * max(0.0, min(t, 2 * half - t) / half)


@mistake(
    "cyclical_lr_doubling",
    caught_by="first_cycle",
    says="The rise follows a cosine. Up and down are straight lines.",
)
def rises_along_a_cosine(t, n_1, lr_min, lr_max):
    half = n_1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return lr_min + (lr_max - lr_min) * (1 - math.cos(math.pi * t / half)) / 2


@mistake(
    "cyclical_lr_doubling",
    caught_by=("each_cycle_is_twice_as_long", "far_cycles", "shortest_cycles"),
    says="lr_max is halved from cycle to cycle. Only the length of the cycles changes, not their height.",
)
def height_halved(t, n_1, lr_min, lr_max):
    half, height = n_1, 1.0
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
        height /= 2
    return lr_min + height * (lr_max - lr_min) * min(t, 2 * half - t) / half


@mistake(
    "cyclical_lr_doubling",
    caught_by="keeps_form",
    says="The result is a tensor; a Python float is asked for, as an optimiser wants it.",
)
def learning_rate_as_a_tensor(t, n_1, lr_min, lr_max):
    half = n_1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return torch.tensor(lr_min + (lr_max - lr_min) * min(t, 2 * half - t) / half, dtype=torch.float64)


@mistake(
    "smooth_labels",
    caught_by="rows_sum_to_one",
    says="ε is shared by the classes that occur in y. K says how many classes there are; a batch need not have all.",
)
def shared_by_the_classes_that_occur(y, K, epsilon):
    share = epsilon / len(y.unique())
    return smooth(y, K, 1 - epsilon + share, share)


@mistake(
    "cyclical_lr_doubling",
    caught_by="starts_at_lr_min",
    says="Everything comes one update too early: updates are counted from 0, and at t = 0 the rate is lr_min.",
)
def one_update_early(t, n_1, lr_min, lr_max):
    t, half = t + 1, n_1
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    return lr_min + (1 - abs(t / half - 1)) * (lr_max - lr_min)


# --- Blocks ----------------------------------------------------------------------------------------------------------


def conv3(c_in, c_out, stride=1):
    """A convolution 3 × 3 with padding 1."""
    return nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)


@mistake(
    "ConvBlock",
    caught_by=("output_in_evaluation", "output_in_training", "running_statistics_move"),
    says="There is no batch normalisation: conv–BN–ReLU is asked for.",
)
class ConvWithoutNorm(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = conv3(c_in, c_out)

    def forward(self, x):
        return torch.relu(self.conv(x))


@mistake(
    "ConvBlock",
    caught_by="layers_are_registered",
    says="The layers stand in a plain Python list, where PyTorch does not see them: no optimiser trains them, and they "
    "are not saved. Make them attributes, or use nn.Sequential or nn.ModuleList.",
)
class LayersHiddenInAList(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.layers = [conv3(c_in, c_out), nn.BatchNorm2d(c_out)]

    def forward(self, x):
        conv, norm = self.layers
        return torch.relu(norm(conv(x)))


@mistake(
    "ConvBlock",
    caught_by="output_in_evaluation",
    says="The normalisation comes after the ReLU. The order is convolution, BN, ReLU.",
)
class NormAfterRelu(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = conv3(c_in, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.norm(torch.relu(self.conv(x)))


@mistake(
    "ConvBlock",
    caught_by="output_in_evaluation",
    says="The ReLU at the end is missing.",
)
class ConvWithoutRelu(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = conv3(c_in, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.norm(self.conv(x))


@mistake(
    "ConvBlock",
    caught_by="height_and_width_stay",
    says="The convolution has no padding, so height and width shrink by 2. Padding 1 keeps them.",
)
class ConvWithoutPadding(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c_in, c_out, 3), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


@mistake(
    "ConvBlock",
    caught_by=("output_in_evaluation", "output_in_training", "running_statistics_move"),
    says="The normalisation is InstanceNorm2d: each image by its own statistics, no running ones. BatchNorm2d takes "
    "the statistics of a channel over the whole batch.",
)
class InstanceNormed(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = conv3(c_in, c_out), nn.InstanceNorm2d(c_out, affine=True)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


@mistake(
    "ConvBlock",
    caught_by=("output_in_evaluation", "output_in_training"),
    says="Every pixel is normalised for itself (BatchNorm1d of the flattened maps). A convolution's statistics are "
    "taken per channel, over batch, rows and columns: BatchNorm2d.",
)
class NormedPixelByPixel(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = conv3(c_in, c_out), nn.LazyBatchNorm1d()

    def forward(self, x):
        z = self.conv(x)
        return torch.relu(self.norm(z.flatten(1)).reshape(z.shape))


@mistake(
    "ConvBlock",
    caught_by=("output_in_training", "running_statistics_move"),
    says="BN is kept in evaluation mode, so in training it normalises by running statistics that never learn.",
)
class NormAlwaysInEvaluation(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = conv3(c_in, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        self.norm.eval()
        return torch.relu(self.norm(self.conv(x)))


@mistake(
    "ConvBlock",
    caught_by=("output_in_evaluation", "output_in_training"),
    says="The kernel is 5 × 5; 3 × 3 is asked for.",
)
class ConvOfFive(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c_in, c_out, 5, padding=2), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


@mistake(
    "ConvBlock",
    caught_by=("output_in_evaluation", "output_in_training"),
    says="The padding mirrors or repeats the image (`padding_mode`). Zeros are asked for.",
)
class ConvPaddedByReflection(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """A right residual block, to be spoiled."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1, self.norm1 = conv3(c_in, c_out, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = conv3(c_out, c_out), nn.BatchNorm2d(c_out)
        self.short = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.short = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))

    def branch(self, x):
        return self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))

    def forward(self, x):
        return torch.relu(self.branch(x) + self.short(x))


@mistake(
    "ResidualBlock",
    caught_by="relu_after_the_sum",
    says="The shortcut is added after the last ReLU. The ReLU acts on the sum, or the block can only ever add.",
)
class AddedAfterRelu(Residual):
    def forward(self, x):
        return torch.relu(self.branch(x)) + self.short(x)


@mistake(
    "ResidualBlock",
    caught_by="relu_after_the_sum",
    says="There is no ReLU after the sum.",
)
class SumWithoutRelu(Residual):
    def forward(self, x):
        return self.branch(x) + self.short(x)


@mistake(
    "ResidualBlock",
    caught_by="relu_after_the_sum",
    says="The branch ends with a ReLU of its own, as two ConvBlocks in a row do, so it can only ever add. The one "
    "ReLU after the second normalisation acts on the sum.",
)
class TwoConvBlocks(Residual):
    def forward(self, x):
        return torch.relu(torch.relu(self.branch(x)) + self.short(x))


@mistake(
    "ResidualBlock",
    caught_by=("identity_where_the_shape_stays", "projection_for_other_channels", "projection_for_a_stride"),
    says="The shortcut is not added: this is a plain block of two convolutions.",
)
class PlainBlock(Residual):
    def forward(self, x):
        return torch.relu(self.branch(x))


@mistake(
    "ResidualBlock",
    caught_by="identity_where_the_shape_stays",
    says="The shortcut is a 1×1 convolution even where the shape stays. There it is the identity, which is what lets "
    "gradients pass deep networks.",
)
class AlwaysProjected(Residual):
    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, stride)
        self.short = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))


@mistake(
    "ResidualBlock",
    caught_by=("projection_for_other_channels", "projection_for_a_stride"),
    says="The shortcut's 1×1 convolution has no batch normalisation after it.",
)
class ShortcutWithoutNorm(Residual):
    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, stride)
        if stride != 1 or c_in != c_out:
            self.short = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)


@mistake(
    "ResidualBlock",
    caught_by="projection_for_other_channels",
    says="The projection is made only where the stride is not 1; where the channels change the sum does not fit.",
)
class ProjectedForStridesOnly(Residual):
    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, stride)
        if stride == 1:
            self.short = nn.Identity()


@mistake(
    "ResidualBlock",
    caught_by="projection_for_a_stride",
    says="The projection is made only where the channels change; a stride changes the shape as well.",
)
class ProjectedForChannelsOnly(Residual):
    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, stride)
        if c_in == c_out:
            self.short = nn.Identity()


@mistake(
    "ResidualBlock",
    caught_by="projection_for_a_stride",
    says="The second convolution takes the stride. The first one does, so that the second already works on the "
    "smaller maps.",
)
class StrideOnTheSecond(Residual):
    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, stride)
        self.conv1, self.conv2 = conv3(c_in, c_out), conv3(c_out, c_out, stride)


@mistake(
    "ResidualBlock",
    caught_by="identity_where_the_shape_stays",
    says="The ReLU between the two convolutions is missing.",
)
class NoReluBetween(Residual):
    def branch(self, x):
        return self.norm2(self.conv2(self.norm1(self.conv1(x))))


@mistake(
    "ResidualBlock",
    caught_by=("identity_where_the_shape_stays", "running_statistics_move"),
    says="There is no batch normalisation between the first convolution and its ReLU.",
)
class FirstNormMissing(Residual):
    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, stride)
        self.norm1 = nn.Identity()


@mistake(
    "ResidualBlock",
    caught_by=("identity_where_the_shape_stays", "running_statistics_move"),
    says="The normalisation after the second convolution is missing.",
)
class SecondNormMissing(Residual):
    def branch(self, x):
        return self.conv2(torch.relu(self.norm1(self.conv1(x))))


@mistake(
    "ResidualBlock",
    caught_by=("identity_where_the_shape_stays", "running_statistics_move"),
    says="Both convolutions share one BatchNorm2d. Each has statistics, and so a layer, of its own.",
)
class OneNormForBoth(Residual):
    def branch(self, x):
        return self.norm1(self.conv2(torch.relu(self.norm1(self.conv1(x)))))


@mistake(
    "ResidualBlock",
    caught_by=("identity_where_the_shape_stays", "projection_for_other_channels", "projection_for_a_stride"),
    says="The shortcut passes a ReLU before it is added. It is the input itself.",
)
class ReluOnTheShortcut(Residual):
    def forward(self, x):
        return torch.relu(self.branch(x) + torch.relu(self.short(x)))


@mistake(
    "ResidualBlock",
    caught_by="leaves_images_alone",
    says="`out += x` or an in-place ReLU writes into the input: with the identity as shortcut the caller's images "
    "change.",
)
class InputChangedByTheSum(Residual):
    def forward(self, x):
        out = torch.relu(self.branch(x) + self.short(x))
        x.data.clamp_(min=0)
        return out


# --- ConvNet ---------------------------------------------------------------------------------------------------------


class SmallNet(nn.Module):
    """A right net, to be spoiled."""

    def __init__(self, n_classes):
        super().__init__()
        self.one, self.norm = conv3(3, 8), nn.BatchNorm2d(8)
        self.two = conv3(8, 12)
        self.last = nn.Linear(12, n_classes)

    def features(self, x):
        x = functional.max_pool2d(torch.relu(self.norm(self.one(x))), 4)
        return torch.relu(self.two(x)).mean((2, 3))

    def forward(self, x):
        return self.last(self.features(x))


@mistake(
    "ConvNet",
    caught_by="scores_are_unnormalised",
    says="The net ends with a softmax. The cross-entropy of PyTorch takes scores and has its own softmax: with two "
    "of them the gradient nearly vanishes.",
)
class EndsWithSoftmax(SmallNet):
    def forward(self, x):
        return torch.softmax(super().forward(x), 1)


@mistake(
    "ConvNet",
    caught_by="scores_are_unnormalised",
    says="The net ends with log_softmax. Unnormalised scores are asked for.",
)
class EndsWithLogSoftmax(SmallNet):
    def forward(self, x):
        return torch.log_softmax(super().forward(x), 1)


@mistake(
    "ConvNet",
    caught_by="scores_are_unnormalised",
    says="The net ends with a ReLU, so no score can be negative and classes whose scores are 0 learn nothing.",
)
class EndsWithRelu(SmallNet):
    def forward(self, x):
        return torch.relu(super().forward(x))


@mistake(
    "ConvNet",
    caught_by="scores_of_every_class",
    says="The number of classes is written as 10; use the argument n_classes.",
)
class AlwaysTenClasses(SmallNet):
    def __init__(self, n_classes):
        super().__init__(10)


@mistake(
    "ConvNet",
    caught_by="scores_of_every_class",
    says="`squeeze()` removes every axis of length one, the batch's too where a single image comes. Flatten from "
    "axis 1 on.",
)
class SqueezesASingleImage(SmallNet):
    def forward(self, x):
        return functional.linear(self.features(x).squeeze(), self.last.weight, self.last.bias)


@mistake(
    "ConvNet",
    caught_by="layers_are_registered",
    says="Layers stand in a plain Python list, where neither `parameters()` nor `state_dict()` finds them: they "
    "would never be trained. Use nn.ModuleList or nn.Sequential.",
)
class LayersInAPlainList(SmallNet):
    def __init__(self, n_classes):
        super().__init__(n_classes)
        self.more = [nn.Linear(12, 12)]

    def forward(self, x):
        return self.last(torch.relu(self.more[0](self.features(x))))


@mistake(
    "ConvNet",
    caught_by="at_most_300k_parameters",
    says="The fully connected layer has far too many weights: the net has more than 300,000 parameters. Pool first.",
)
class TooManyParameters(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.conv, self.hidden, self.last = conv3(3, 16), nn.Linear(16 * 64, 400), nn.Linear(400, n_classes)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.conv(x)), 4)
        return self.last(torch.relu(self.hidden(x.flatten(1))))


@mistake(
    "ConvNet",
    caught_by="at_most_300k_parameters",
    says="There is no convolution in the net: it is a fully connected one.",
)
class FullyConnected(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.hidden, self.last = nn.Linear(3072, 60), nn.Linear(60, n_classes)

    def forward(self, x):
        return self.last(torch.relu(self.hidden(x.flatten(1))))


@mistake(
    "ConvNet",
    caught_by="more_than_a_linear_map",
    says="There is no ReLU (or other bend) between the layers, so the whole net is one linear map.",
)
class LinearNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.one, self.two, self.last = conv3(3, 8), conv3(8, 12), nn.Linear(12, n_classes)

    def forward(self, x):
        return self.last(self.two(functional.avg_pool2d(self.one(x), 4)).mean((2, 3)))


@mistake(
    "ConvNet",
    caught_by="images_do_not_meet_in_evaluation",
    says="The statistics of the batch are used in evaluation mode as well, so an image's scores depend on its company.",
)
class MeetsTheBatch(SmallNet):
    def features(self, x):
        z = self.one(x)
        z = functional.batch_norm(z, None, None, self.norm.weight, self.norm.bias, training=True)
        return torch.relu(self.two(functional.max_pool2d(torch.relu(z), 4))).mean((2, 3))


@mistake(
    "ConvNet",
    caught_by="gradients_reach_every_layer",
    says="The features are made under `torch.no_grad()` (or detached), so only the last layer learns.",
)
class FeaturesDetached(SmallNet):
    def forward(self, x):
        with torch.no_grad():
            features = self.features(x)
        return self.last(features)


@mistake(
    "ConvNet",
    caught_by="leaves_images_alone",
    says="The images are changed in place (`x -= mean`, an in-place ReLU on the input): whoever passed them finds "
    "other images.",
)
class ImagesCentredInPlace(SmallNet):
    def forward(self, x):
        with torch.no_grad():
            x -= x.mean((1, 2, 3), keepdim=True)
        return super().forward(x)


# --- Augmentation ----------------------------------------------------------------------------------------------------


def draws(N, generator, offsets=9):
    """Offsets down and across (N, 2), and which images are mirrored."""
    return torch.randint(0, offsets, (N, 2), generator=generator), torch.rand(N, generator=generator) < 0.5


def cropped(images, where, mirrored, mode="constant"):
    """A piece of every padded image, mirrored or not."""
    wide = functional.pad(images, (4, 4, 4, 4), mode=mode)
    pieces = [wide[n, :, i : i + 32, j : j + 32] for n, (i, j) in enumerate(where.tolist())]
    return torch.stack([p.flip(2) if m else p for p, m in zip(pieces, mirrored.tolist(), strict=True)])


@mistake(
    "augment",
    caught_by="offsets_are_uniform",
    says="The offsets run from 0 to 7: `randint` leaves its upper end out. Nine offsets, 0 … 8, are possible.",
)
def eight_offsets(images, generator):
    return cropped(images, *draws(len(images), generator, 8))


@mistake(
    "augment",
    caught_by="each_image_its_own",
    says="All images of a batch are shifted by the same offsets. Each image has its own.",
)
def one_offset_for_the_batch(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images, where[:1].expand(len(images), 2), mirrored)


@mistake(
    "augment",
    caught_by="each_image_its_own",
    says="The whole batch is mirrored or not. Each image has its own chance.",
)
def one_flip_for_the_batch(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images, where, mirrored[:1].expand(len(images)))


@mistake(
    "augment",
    caught_by="each_image_its_own",
    says="Offsets and coin are drawn once for the whole batch. Each image has its own: draw N of each.",
)
def one_draw_for_the_batch(images, generator):
    where, mirrored = draws(1, generator)
    return cropped(images, where.expand(len(images), 2), mirrored.expand(len(images)))


@mistake(
    "augment",
    caught_by="same_state_same_result",
    says="The coin for the mirror image comes from the global random numbers: `generator=generator` is missing there.",
)
def coin_from_the_global_generator(images, generator):
    where, _ = draws(len(images), generator)
    return cropped(images, where, torch.rand(len(images)) < 0.5)


@mistake(
    "augment",
    caught_by=("same_state_same_result",),
    says="Offsets and coin come from the global random numbers: the generator that is given is not used.",
)
def all_from_the_global_generator(images, generator):
    return cropped(images, *draws(len(images), None))


@mistake(
    "augment",
    caught_by="offsets_are_uniform",
    says="The same offset is used down and across, so images move along the diagonal only.",
)
def same_offset_down_and_across(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images, where[:, :1].expand(-1, 2), mirrored)


@mistake(
    "augment",
    caught_by="half_are_mirrored",
    says="The images are never mirrored.",
)
def never_mirrored(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images, where, mirrored & False)


@mistake(
    "augment",
    caught_by="half_are_mirrored",
    says="Every image is mirrored; half of them should be.",
)
def always_mirrored(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images, where, mirrored | True)


@mistake(
    "augment",
    caught_by=("crops_of_the_padded_image", "half_are_mirrored"),
    says="The images are turned upside down (the rows are reversed). A mirror image reverses the columns: the last "
    "axis.",
)
def mirrored_upside_down(images, generator):
    where, mirrored = draws(len(images), generator)
    pieces = cropped(images, where, mirrored & False)
    return torch.where(mirrored[:, None, None, None], pieces.flip(2), pieces)


@mistake(
    "augment",
    caught_by="crops_of_the_padded_image",
    says="The border is filled by mirroring the image. Zeros are asked for.",
)
def padded_by_reflection(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images.double(), where, mirrored, "reflect").to(images.dtype)


@mistake(
    "augment",
    caught_by="crops_of_the_padded_image",
    says="`roll` brings what leaves the picture on one side back on the other. Pad with zeros and crop.",
)
def rolled(images, generator):
    where, mirrored = draws(len(images), generator)
    moved = [x.roll((i - 4, j - 4), (1, 2)) for x, (i, j) in zip(images, where.tolist(), strict=True)]
    return torch.stack([x.flip(2) if m else x for x, m in zip(moved, mirrored.tolist(), strict=True)])


@mistake(
    "augment",
    caught_by="offsets_are_uniform",
    says="The images are mirrored but not shifted.",
)
def only_mirrored(images, generator):
    _, mirrored = draws(len(images), generator)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


@mistake(
    "augment",
    caught_by=("keeps_form", "keeps_any_dtype"),
    says="The images come back as float32 whatever they were: the new tensor is made with `torch.zeros(shape)`. Use "
    "`images.new_zeros(shape)`.",
)
def augmented_in_float32(images, generator):
    return cropped(images, *draws(len(images), generator)).float()


@mistake(
    "augment",
    caught_by="leaves_arguments_alone",
    says="The images are mirrored in place: the caller's training set is changed, a little more every epoch.",
)
def mirrored_in_place(images, generator):
    where, mirrored = draws(len(images), generator)
    images[mirrored] = images[mirrored].flip(3)
    return cropped(images, where, mirrored & False)


@mistake(
    "augment",
    caught_by="generator_decides",
    says="The draws come from a generator made inside with a fixed seed, so every batch is changed in the same way. "
    "Use the generator that is given.",
)
def own_generator(images, generator):
    return cropped(images, *draws(len(images), torch.Generator().manual_seed(0)))


@mistake(
    "augment",
    caught_by="offsets_are_uniform",
    says="The offsets come from a bell-shaped distribution (a sum or a rounded Gaussian), so large shifts are rare. "
    "Every offset is to be equally likely.",
)
def offsets_around_the_middle(images, generator):
    first, mirrored = draws(len(images), generator, 5)
    second, _ = draws(len(images), generator, 5)
    return cropped(images, first + second, mirrored)


@mistake(
    "augment",
    caught_by="mirroring_says_nothing_of_the_offset",
    says="Whether an image is mirrored depends on its offset (both were read from one draw), so some shifts only "
    "come mirrored.",
)
def flip_tied_to_the_offset(images, generator):
    where, _ = draws(len(images), generator)
    return cropped(images, where, where[:, 1] > 4)


@mistake(
    "augment",
    caught_by="offsets_are_uniform",
    says="The offsets are rounded numbers from 0 to 8, and only half as many numbers round to 0 or to 8 as to each of "
    "the others. `torch.randint(0, 9, …)` gives all nine equally often.",
)
def offsets_rounded(images, generator):
    _, mirrored = draws(len(images), generator)
    where = (8 * torch.rand(len(images), 2, generator=generator)).round().long()
    return cropped(images, where, mirrored)


@mistake(
    "augment",
    caught_by="offsets_are_uniform",
    says="The offset across follows from the one down: only nine of the 81 shifts ever come. Draw both.",
)
def offset_across_from_the_one_down(images, generator):
    where, mirrored = draws(len(images), generator)
    return cropped(images, torch.stack([where[:, 0], 8 - where[:, 0]], 1), mirrored)


@mistake(
    "augment",
    caught_by="half_are_mirrored",
    says="Exactly half of a batch is mirrored, so a single image never is. Every image has its own coin.",
)
def half_of_a_batch_mirrored(images, generator):
    where, _ = draws(len(images), generator)
    return cropped(images, where, torch.randperm(len(images), generator=generator) < len(images) // 2)


@mistake(
    "augment",
    caught_by="crops_of_the_padded_image",
    says="The augmented images come in another order than the images: their labels are then those of other images.",
)
def images_change_places(images, generator):
    return cropped(images, *draws(len(images), generator)).roll(1, 0)


@mistake(
    "augment",
    caught_by="keeps_any_dtype",
    says="The images go through float32 on the way (`torch.zeros` without a dtype), which rounds float64 and large "
    "whole numbers. Pixels are moved, not computed with: `images.new_zeros(…)`.",
)
def pasted_into_float32(images, generator):
    wide = torch.zeros(len(images), images.shape[1], 40, 40)
    wide[:, :, 4:-4, 4:-4] = images
    where, mirrored = draws(len(images), generator)
    pieces = [wide[n, :, i : i + 32, j : j + 32] for n, (i, j) in enumerate(where.tolist())]
    pieces = [p.flip(2) if m else p for p, m in zip(pieces, mirrored.tolist(), strict=True)]
    return torch.stack(pieces).to(images.dtype)


@mistake(
    "augment",
    caught_by="generator_decides",
    says="The generator is set back to its seed, so every batch is changed in the same way. Leave it where the draws "
    "have brought it.",
)
def generator_set_back(images, generator):
    result = cropped(images, *draws(len(images), generator))
    generator.manual_seed(generator.initial_seed())
    return result


@mistake(
    "augment",
    caught_by="each_image_its_own",
    says="One coin decides for the whole batch: it mirrors either the even or the odd images. Each image needs a coin "
    "of its own.",
)
def every_second_image_mirrored(images, generator):
    where, coins = draws(len(images), generator)
    return cropped(images, where, (torch.arange(len(images)) % 2 == 1) ^ coins[0])


@mistake(
    "augment",
    caught_by="keeps_any_dtype",
    says="Only three channels are moved, whatever the images have. Read C from their shape.",
)
def three_channels_moved(images, generator):
    return cropped(images[:, :3], *draws(len(images), generator))


# --- Training and evaluation -----------------------------------------------------------------------------------------


def batches(images, labels, batch_size, generator):
    """Batches of images and labels in random order."""
    order = torch.randperm(len(images), generator=generator)
    return [(images[part], labels[part]) for part in order.split(batch_size)]


def step(model, x, y, optimizer):
    """One step of training; the loss before it."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@mistake(
    "train_epoch",
    caught_by="gradients_start_from_zero",
    says="The gradients are never set to zero, so every step follows the sum of all gradients so far.",
)
def gradients_pile_up(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        loss = functional.cross_entropy(model(x if transform is None else transform(x, generator)), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="gradients_start_from_zero",
    says="The gradients are set to zero between `backward` and `step`, so the step has nothing to follow. The order "
    "is zero_grad, backward, step.",
)
def zeroed_before_the_step(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        loss = functional.cross_entropy(model(x if transform is None else transform(x, generator)), y)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        total += loss.item() * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="one_step_a_batch",
    says="There is one step an epoch, after the loop: that is full-batch gradient descent. A step follows each batch.",
)
def one_step_an_epoch(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x if transform is None else transform(x, generator)), y)
        loss.backward()
        total += loss.item() * len(y)
    optimizer.step()
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="mean_over_the_batch",
    says="The loss is summed over the batch, so the step grows with the batch size. The mean is what the learning "
    "rate was chosen for.",
)
def losses_of_a_batch_summed(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        optimizer.zero_grad()
        scores = model(x if transform is None else transform(x, generator))
        loss = functional.cross_entropy(scores, y, reduction="sum")
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by=("last_batch_is_what_is_left", "mean_loss_over_images"),
    says="The last batch is dropped where batch_size does not divide N.",
)
def last_batch_dropped(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total, count = model.training, 0.0, 0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        if len(y) == batch_size:
            total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
            count += len(y)
    model.train(was)
    return total / max(1, count)


@mistake(
    "train_epoch",
    caught_by=("images_keep_their_labels", "mean_loss_over_images"),
    says="Images and labels are shuffled by two different permutations, so images lose their labels.",
)
def two_permutations(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    labels = labels[torch.randperm(len(labels), generator=generator)]
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="random_order",
    says="The images come in the order in which they are stored. Draw a new order from the generator for every epoch.",
)
def never_shuffled(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="generator_decides",
    says="The order is drawn from a generator of its own with a fixed seed, so every epoch has the same one. Use the "
    "generator that is given.",
)
def always_the_same_order(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, torch.Generator().manual_seed(0)):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="same_state_same_result",
    says="The order is drawn from the global random numbers: `generator=generator` is missing in `randperm`.",
)
def order_from_the_global_generator(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, None):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="every_image_once",
    says="Batches are drawn at random from all images each time, so in one epoch some images come twice and others "
    "never.",
)
def drawn_with_replacement(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    chosen = torch.randint(0, len(images), (len(images),), generator=generator)
    for part in chosen.split(batch_size):
        x, y = images[part], labels[part]
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="mean_loss_over_images",
    says="The result is the mean of the batches' mean losses: the images of a short last batch count too much. "
    "Weight each batch by its number of images.",
)
def mean_of_batch_means(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, losses = model.training, []
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        losses.append(step(model, x if transform is None else transform(x, generator), y, optimizer))
    model.train(was)
    return sum(losses) / len(losses)


@mistake(
    "train_epoch",
    caught_by="mean_loss_over_images",
    says="The result is the loss of the last batch, not the mean over all images.",
)
def loss_of_the_last_batch(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, last = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        last = step(model, x if transform is None else transform(x, generator), y, optimizer)
    model.train(was)
    return last


@mistake(
    "train_epoch",
    caught_by="mean_loss_over_images",
    says="The result is the sum of the batches' mean losses, divided by N: only the sum of all images' losses "
    "becomes a mean that way.",
)
def batch_means_over_n(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="training_mode_during",
    says="`model.train()` is not called: a model that comes from an evaluation trains in evaluation mode, without "
    "dropout and with old running statistics.",
)
def mode_taken_as_it_comes(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    total = 0.0
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="mode_as_before",
    says="The model is left in training mode. Whoever gave it in evaluation mode expects it so.",
)
def left_in_training_mode(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    total = 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="mode_as_before",
    says="The model is always left in evaluation mode, also where it came in training mode.",
)
def left_in_evaluation_mode(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    total = 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.eval()
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="mode_as_before",
    says="Afterwards only `model.training` is set back; the layers inside stay in training mode. `model.train(mode)` "
    "tells them all.",
)
def only_the_flag_is_set_back(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.training = was
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="training_mode_during",
    says="Only `model.training` is set, which the layers inside do not see. `model.train()` tells them all.",
)
def only_the_flag_is_set(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.training = True
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.training = was
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="transform_makes_the_batch",
    says="What `transform` returns is not used: it does not change the batch in place.",
)
def transform_result_dropped(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        if transform is not None:
            transform(x, generator)
        total += step(model, x, y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="transform_makes_the_batch",
    says="`transform` is called once for the whole set. It is called for every batch.",
)
def transform_of_the_whole_set(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    if transform is not None:
        images = transform(images, generator)
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x, y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by=("transform_makes_the_batch", "transform_gets_the_generator"),
    says="`transform` is never called.",
)
def transform_forgotten(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x, y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="transform_gets_the_generator",
    says="`transform` gets a fresh generator with a fixed seed, so every batch is changed in the same way. Hand on "
    "the one that is given.",
)
def transform_with_another_generator(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        if transform is not None:
            x = transform(x, torch.Generator().manual_seed(0))
        total += step(model, x, y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="keeps_form",
    says="The result is a tensor; a Python float is asked for: `loss.item()`.",
)
def loss_as_a_tensor(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, torch.zeros((), dtype=torch.float64)
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by=("random_order", "order_within_batches_too"),
    says="Whole batches are put into a random order, but the same images meet in every epoch. Shuffle the images.",
)
def batches_shuffled_not_images(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    parts = torch.arange(len(images)).split(batch_size)
    whole = len(images) // batch_size
    for k in [*torch.randperm(whole, generator=generator).tolist(), *range(whole, len(parts))]:
        x, y = images[parts[k]], labels[parts[k]]
        total += step(model, x if transform is None else transform(x, generator), y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="mean_loss_over_images",
    says="The loss is measured once more at the end, with the trained model. Asked for is the loss that each image had "
    "when its batch was used, which costs no pass of its own.",
)
def loss_measured_at_the_end(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was = model.training
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        step(model, x if transform is None else transform(x, generator), y, optimizer)
    with torch.no_grad():
        loss = functional.cross_entropy(model(images), labels).item()
    model.train(was)
    return loss


@mistake(
    "train_epoch",
    caught_by="mean_over_the_batch",
    says="The sum of a batch's losses is divided by `batch_size`. The last batch may be short: divide by the number of "
    "images it has, or leave the mean to `cross_entropy`.",
)
def divided_by_the_batch_size(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    model.train()
    for x, y in batches(images, labels, batch_size, generator):
        x = x if transform is None else transform(x, generator)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y, reduction="sum")
        (loss / batch_size).backward()
        optimizer.step()
        total += loss.item()
    model.train(was)
    return total / len(images)


@mistake(
    "train_epoch",
    caught_by="training_mode_during",
    says="A last batch of a single image is trained in evaluation mode. `BatchNorm2d` has its pixels for that, and "
    "a model that cannot train on one image should say so itself.",
)
def single_image_in_evaluation_mode(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, total = model.training, 0.0
    for x, y in batches(images, labels, batch_size, generator):
        model.train(len(y) > 1 or batch_size == 1)
        x = x if transform is None else transform(x, generator)
        total += step(model, x, y, optimizer) * len(y)
    model.train(was)
    return total / len(images)


def counted_right(model, images, labels, batch_size):
    """How many images are classified right, in the model's present mode."""
    parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return sum((model(x).argmax(1) == y).sum().item() for x, y in parts)


@mistake(
    "evaluate",
    caught_by="share_of_right_images",
    says="The accuracy is rounded to two decimals. Round where it is printed, not where it is computed.",
)
def accuracy_rounded(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return round(right / len(images), 2)


@mistake(
    "evaluate",
    caught_by=("evaluation_mode_during", "nothing_else_changes"),
    says="The model stays in the mode in which it comes. In training mode dropout acts and running statistics move: "
    "call `model.eval()`.",
)
def evaluated_in_any_mode(model, images, labels, *, batch_size):
    with torch.no_grad():
        return counted_right(model, images, labels, batch_size) / len(images)


@mistake(
    "evaluate",
    caught_by="mode_as_before",
    says="The model is left in evaluation mode; whoever gave it in training mode goes on without dropout, unaware.",
)
def mode_not_restored(model, images, labels, *, batch_size):
    model.eval()
    with torch.no_grad():
        return counted_right(model, images, labels, batch_size) / len(images)


@mistake(
    "evaluate",
    caught_by="mode_as_before",
    says="The model is always put into training mode afterwards, also where it came in evaluation mode.",
)
def always_back_to_training(model, images, labels, *, batch_size):
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train()
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="no_graph",
    says="A graph is recorded: without `torch.no_grad()` every batch keeps all its intermediate results for a "
    "backward pass that never comes.",
)
def evaluated_with_a_graph(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="nothing_else_changes",
    says="`torch.set_grad_enabled(False)` is never taken back, so nothing after this call can be trained. Use `with "
    "torch.no_grad():`.",
)
def gradients_left_switched_off(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    torch.set_grad_enabled(False)
    right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="every_image_counts_the_same",
    says="The result is the mean of the batches' accuracies: the images of a short last batch count too much. Count "
    "right images, and divide by N at the end.",
)
def mean_of_batch_accuracies(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        found = [(model(x).argmax(1) == y).double().mean().item() for x, y in parts]
    model.train(was)
    return sum(found) / len(found)


@mistake(
    "evaluate",
    caught_by=("every_image_counts_the_same", "in_batches"),
    says="The last batch is left out where batch_size does not divide N, and the count still divided by N.",
)
def last_images_not_evaluated(model, images, labels, *, batch_size):
    was, right = model.training, 0
    model.eval()
    with torch.no_grad():
        for k in range(len(images) // batch_size):
            part = slice(k * batch_size, (k + 1) * batch_size)
            right += (model(images[part]).argmax(1) == labels[part]).sum().item()
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="share_of_right_images",
    says="The result is the number of right images, not their fraction.",
)
def number_of_right_images(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return float(right)


@mistake(
    "evaluate",
    caught_by="share_of_right_images",
    says="The result is in per cent; a fraction between 0 and 1 is asked for.",
)
def accuracy_in_percent(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return 100 * right / len(images)


@mistake(
    "evaluate",
    caught_by="every_image_counts_the_same",
    says="The count is divided by the number of batches times batch_size, which is more than N where the last batch "
    "is short.",
)
def divided_by_full_batches(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return right / (batch_size * math.ceil(len(images) / batch_size))


@mistake(
    "evaluate",
    caught_by="in_batches",
    says="The images are augmented (mirrored) before they are classified. Augmentation is for training: evaluation "
    "looks at the images as they are.",
)
def augmented_at_evaluation(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images.flip(3), labels, batch_size)
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="in_batches",
    says="All images go through the model at once; `batch_size` is there because they may not fit into memory.",
)
def all_images_at_once(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, len(images))
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="nothing_else_changes",
    says="The parameters are frozen with `requires_grad_(False)` and stay so: nothing can be trained any more.",
)
def parameters_left_frozen(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    model.requires_grad_(False)
    right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="keeps_form",
    says="The result is a tensor; a Python float is asked for: `.item()`.",
)
def accuracy_as_a_tensor(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return torch.tensor(right / len(images), dtype=torch.float64)


@mistake(
    "confusion_matrix",
    caught_by="rows_are_true_classes",
    says="The matrix is transposed: rows are true classes, columns are predicted ones.",
)
def rows_are_predictions(y_true, y_pred, K):
    return torch.bincount(y_pred * K + y_true, minlength=K * K).reshape(K, K)


@mistake(
    "confusion_matrix",
    caught_by="counts_of_pairs",
    says="`counts[y_true, y_pred] += 1` adds 1 only once to an entry that is listed several times. Use bincount, a "
    "loop, or `index_put_` with accumulate=True.",
)
def repeated_pairs_counted_once(y_true, y_pred, K):
    counts = torch.zeros(K, K, dtype=torch.int64)
    counts[y_true, y_pred] += 1
    return counts


@mistake(
    "confusion_matrix",
    caught_by="classes_that_do_not_occur",
    says="The matrix is as large as the largest label says. It has K rows and columns, whichever classes occur.",
)
def as_large_as_the_labels(y_true, y_pred, K):
    K = int(max(y_true.max(), y_pred.max())) + 1
    return torch.bincount(y_true * K + y_pred, minlength=K * K).reshape(K, K)


@mistake(
    "confusion_matrix",
    caught_by=("counts_of_pairs", "keeps_form"),
    says="The rows are divided by their sums. Counts are asked for, as int64.",
)
def fractions_for_counts(y_true, y_pred, K):
    counts = torch.bincount(y_true * K + y_pred, minlength=K * K).reshape(K, K).double()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


@mistake(
    "confusion_matrix",
    caught_by="keeps_form",
    says="The counts are floats; int64 is asked for.",
)
def counts_as_floats(y_true, y_pred, K):
    return torch.bincount(y_true * K + y_pred, minlength=K * K).reshape(K, K).float()


@mistake(
    "confusion_matrix",
    caught_by="counts_of_pairs",
    says="Only the wrong images are counted; the diagonal, where the right ones belong, is 0.",
)
def right_images_not_counted(y_true, y_pred, K):
    counts = torch.bincount(y_true * K + y_pred, minlength=K * K).reshape(K, K)
    return counts - torch.diag(counts.diagonal())


@mistake(
    "confusion_matrix",
    caught_by="leaves_arguments_alone",
    says="The predictions are sorted or changed in place: the caller's tensors are not yours to write into.",
)
def predictions_changed(y_true, y_pred, K):
    y_true *= K
    y_true += y_pred
    return torch.bincount(y_true, minlength=K * K).reshape(K, K)


@mistake(
    "evaluate",
    caught_by="nothing_else_changes",
    says="The gradients of the model are set to zero or removed. Evaluation changes nothing of the model, and without "
    "a graph there is nothing to clear.",
)
def gradients_cleared(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    model.zero_grad()
    with torch.no_grad():
        right = counted_right(model, images, labels, batch_size)
    model.train(was)
    return right / len(images)


@mistake(
    "evaluate",
    caught_by="nothing_else_changes",
    says="The recording of gradients is switched on at the end, also where it was off before. `with torch.no_grad():` "
    "puts it back as it was.",
)
def gradients_switched_on(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    torch.set_grad_enabled(False)
    right = counted_right(model, images, labels, batch_size)
    torch.set_grad_enabled(True)
    model.train(was)
    return right / len(images)


# --- What the network looks at ---------------------------------------------------------------------------------------


def image_gradient(model, images, y, of):
    """The gradient of `of(scores, y)` with respect to the images."""
    x = images.clone().requires_grad_()
    return torch.autograd.grad(of(model(x), y), x)[0]


def picked(scores, y):
    """The sum of the scores of the classes y."""
    return scores.gather(1, y[:, None]).sum()


@mistake(
    "saliency_map",
    caught_by=("gradient_of_the_score", "largest_magnitude_over_channels"),
    says="This is the gradient of the loss. What moves the score of class y is asked for, before softmax and "
    "logarithm.",
)
def gradient_of_the_loss(model, images, y):
    loss = image_gradient(model, images, y, lambda s, y: functional.cross_entropy(s, y, reduction="sum"))
    return loss.abs().amax(1)


@mistake(
    "saliency_map",
    caught_by=("gradient_of_the_score", "largest_magnitude_over_channels"),
    says="This is the gradient of the probability, not of the score: the softmax mixes in all other classes.",
)
def gradient_of_the_probability(model, images, y):
    return image_gradient(model, images, y, lambda s, y: picked(torch.softmax(s, 1), y)).abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="gradient_of_the_score",
    says="This is the gradient of the largest score, whatever y is. The map belongs to the class that is asked about.",
)
def gradient_of_the_largest_score(model, images, y):
    return image_gradient(model, images, y, lambda s, y: s.amax(1).sum()).abs().amax(1)


@mistake(
    "saliency_map",
    caught_by=("gradient_of_the_score", "largest_magnitude_over_channels"),
    says="The scores of all classes are summed before differentiating. Only the score of class y counts.",
)
def gradient_of_all_scores(model, images, y):
    return image_gradient(model, images, y, lambda s, y: s.sum()).abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="images_are_independent",
    says="The scores are averaged over the batch, so every map is divided by N: the same image gets a weaker map in "
    "a larger batch. Sum them.",
)
def maps_divided_by_n(model, images, y):
    return image_gradient(model, images, y, lambda s, y: picked(s, y) / len(y)).abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="largest_magnitude_over_channels",
    says="The channels are compared without their magnitudes: a strongly negative derivative loses against a small "
    "positive one. Take `abs` first.",
)
def largest_without_magnitude(model, images, y):
    return image_gradient(model, images, y, picked).amax(1)


@mistake(
    "saliency_map",
    caught_by="largest_magnitude_over_channels",
    says="`abs` comes after the maximum over the channels; it has to come before, or a strongly negative derivative "
    "is lost.",
)
def magnitude_after_the_maximum(model, images, y):
    return image_gradient(model, images, y, picked).amax(1).abs()


@mistake(
    "saliency_map",
    caught_by="largest_magnitude_over_channels",
    says="The magnitudes are averaged over the channels; the largest is asked for.",
)
def mean_over_channels(model, images, y):
    return image_gradient(model, images, y, picked).abs().mean(1)


@mistake(
    "saliency_map",
    caught_by="gradient_of_the_score",
    says="The map is divided by its own largest value. That is for drawing; here the derivative itself is asked for.",
)
def map_scaled_to_one(model, images, y):
    found = image_gradient(model, images, y, picked).abs().amax(1)
    return found / found.amax((1, 2), keepdim=True)


@mistake(
    "saliency_map",
    caught_by="leaves_everything_as_it_was",
    says="`backward()` adds to the .grad of every parameter of the model, and the next training step would follow "
    "it. `torch.autograd.grad(score, images)` gives the one gradient that is asked for.",
)
def backward_through_the_model(model, images, y):
    x = images.clone().requires_grad_()
    picked(model(x), y).backward()
    return x.grad.abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="leaves_everything_as_it_was",
    says="The model's gradients are cleared (`zero_grad`) before or afterwards: what was in the parameters' .grad is "
    "lost.",
)
def gradients_of_the_model_cleared(model, images, y):
    x = images.clone().requires_grad_()
    picked(model(x), y).backward()
    model.zero_grad()
    return x.grad.abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="leaves_everything_as_it_was",
    says="`images.requires_grad_()` marks the caller's own tensor. Work on `images.clone()` (or `detach().clone()`).",
)
def callers_images_marked(model, images, y):
    images.requires_grad_()
    return torch.autograd.grad(picked(model(images), y), images)[0].abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="leaves_everything_as_it_was",
    says="The parameters are frozen with requires_grad_(False) and all are set back to True, also those that were "
    "frozen before.",
)
def parameters_thawed(model, images, y):
    for p in model.parameters():
        p.requires_grad_(False)
    found = image_gradient(model, images, y, picked)
    for p in model.parameters():
        p.requires_grad_(True)
    return found.abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="leaves_everything_as_it_was",
    says="The model is left in training mode. It came in evaluation mode, and whoever uses it next gets other scores.",
)
def saliency_leaves_training_mode(model, images, y):
    found = image_gradient(model, images, y, picked).abs().amax(1)
    model.train()
    return found


@mistake(
    "saliency_map",
    caught_by="leaves_everything_as_it_was",
    says="Only `model.training` is set back; the layers inside stay in training mode. `model.train(mode)` and "
    "`model.eval()` tell them all.",
)
def layers_left_in_training_mode(model, images, y):
    found = image_gradient(model, images, y, picked).abs().amax(1)
    model.train()
    model.training = False
    return found


@mistake(
    "saliency_map",
    caught_by="no_graph_in_the_result",
    says="The map still carries a graph (`create_graph=True`, or no `detach()`): whoever keeps it keeps the whole "
    "network's intermediate results.",
)
def map_with_a_graph(model, images, y):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(picked(model(x), y), x, create_graph=True)[0].abs().amax(1)


@mistake(
    "saliency_map",
    caught_by="no_graph_in_the_result",
    says="Rows and columns are exchanged: the map has the shape (N, W, H). A pixel's place in it is that in its image.",
)
def rows_and_columns_exchanged(model, images, y):
    return image_gradient(model, images, y, picked).abs().amax(1).transpose(1, 2)


def moved(images, gradient, epsilon):
    """The images after a step along the sign of a gradient."""
    return (images + epsilon * gradient.sign()).clamp(0, 1)


@mistake(
    "fgsm",
    caught_by="step_along_the_sign",
    says="The step goes downhill: the loss of the true class becomes smaller. An attack makes it larger: images + ε "
    "· sign(gradient).",
)
def step_downhill(model, images, y, epsilon):
    return moved(images, -image_gradient(model, images, y, functional.cross_entropy), epsilon)


@mistake(
    "fgsm",
    caught_by="step_along_the_sign",
    says="The step follows the gradient of the true class's score. The cross-entropy also counts how the other "
    "classes' scores move: its gradient has other signs.",
)
def step_along_the_score(model, images, y, epsilon):
    return moved(images, -image_gradient(model, images, y, picked), epsilon)


@mistake(
    "fgsm",
    caught_by=("step_along_the_sign", "epsilon_is_the_step"),
    says="The sign is not taken: pixels move by ε times their gradient, which is tiny. Every pixel moves by ε itself.",
)
def gradient_without_sign(model, images, y, epsilon):
    g = image_gradient(model, images, y, lambda s, y: functional.cross_entropy(s, y, reduction="sum"))
    return (images + epsilon * g).clamp(0, 1)


@mistake(
    "fgsm",
    caught_by=("step_along_the_sign", "epsilon_is_the_step"),
    says="The gradient is divided by its norm; its sign is asked for, so that every pixel moves by ε.",
)
def gradient_normalised(model, images, y, epsilon):
    g = image_gradient(model, images, y, lambda s, y: functional.cross_entropy(s, y, reduction="sum"))
    return (images + epsilon * g / g.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)


@mistake(
    "fgsm",
    caught_by="step_along_the_sign",
    says="The scores go through a softmax before the cross-entropy, which has its own: the gradient is that of "
    "another loss.",
)
def softmax_before_the_loss(model, images, y, epsilon):
    g = image_gradient(model, images, y, lambda s, y: functional.cross_entropy(torch.softmax(s, 1), y))
    return moved(images, g, epsilon)


@mistake(
    "fgsm",
    caught_by="images_are_independent",
    says="All images are moved along the sign of the mean gradient. Every image has its own.",
)
def one_step_for_the_batch(model, images, y, epsilon):
    g = image_gradient(model, images, y, functional.cross_entropy).mean(0, keepdim=True)
    return moved(images, g, epsilon)


@mistake(
    "fgsm",
    caught_by="clipped",
    says="The result is not clipped: pixels below 0 or above 1 are no picture any more.",
)
def not_clipped(model, images, y, epsilon):
    return images + epsilon * image_gradient(model, images, y, functional.cross_entropy).sign()


@mistake(
    "fgsm",
    caught_by="clipped",
    says="The result is clipped to [−1, 1]; pixels lie in [0, 1].",
)
def clipped_to_minus_one(model, images, y, epsilon):
    g = image_gradient(model, images, y, functional.cross_entropy)
    return (images + epsilon * g.sign()).clamp(-1, 1)


@mistake(
    "fgsm",
    caught_by="step_along_the_sign",
    says="The step is taken against the class with the largest score, whatever y is. The loss of y is to grow.",
)
def attacks_the_prediction(model, images, y, epsilon):
    g = image_gradient(model, images, y, lambda s, y: functional.cross_entropy(s, s.argmax(1)))
    return moved(images, g, epsilon)


@mistake(
    "fgsm",
    caught_by="pixels_without_gradient_stay",
    says="Pixels whose gradient is 0 are moved as well (`where(g > 0, ε, −ε)`). sign(0) is 0: they stay.",
)
def zero_gradient_moved(model, images, y, epsilon):
    g = image_gradient(model, images, y, functional.cross_entropy)
    return (images + torch.where(g > 0, epsilon, -epsilon)).clamp(0, 1)


@mistake(
    "fgsm",
    caught_by="leaves_everything_as_it_was",
    says="`backward()` adds to the .grad of every parameter of the model. `torch.autograd.grad(loss, images)` gives "
    "the one gradient that is asked for.",
)
def attack_by_backward(model, images, y, epsilon):
    x = images.clone().requires_grad_()
    functional.cross_entropy(model(x), y).backward()
    return moved(images, x.grad, epsilon)


@mistake(
    "fgsm",
    caught_by="leaves_everything_as_it_was",
    says="The caller's own images are changed (`+=`, `clamp_`). Work on a copy.",
)
def images_attacked_in_place(model, images, y, epsilon):
    g = image_gradient(model, images, y, functional.cross_entropy)
    images += epsilon * g.sign()
    return images.clamp_(0, 1)


@mistake(
    "fgsm",
    caught_by="leaves_everything_as_it_was",
    says="`images.requires_grad_()` marks the caller's own tensor. Work on `images.clone()`.",
)
def attacked_images_marked(model, images, y, epsilon):
    images.requires_grad_()
    g = torch.autograd.grad(functional.cross_entropy(model(images), y), images)[0]
    return moved(images.detach(), g, epsilon)


@mistake(
    "fgsm",
    caught_by="no_graph_in_the_result",
    says="The result still carries the graph of the step. Leave it with `detach()`.",
)
def attack_with_a_graph(model, images, y, epsilon):
    x = images.clone().requires_grad_()
    g = torch.autograd.grad(functional.cross_entropy(model(x), y), x)[0]
    return moved(x, g, epsilon)


@mistake(
    "fgsm",
    caught_by="leaves_everything_as_it_was",
    says="The model is left in training mode (or was put into it for the gradient). It came in evaluation mode.",
)
def attack_leaves_training_mode(model, images, y, epsilon):
    g = image_gradient(model, images, y, functional.cross_entropy)
    model.train()
    return moved(images, g, epsilon)


# --- Bonus -----------------------------------------------------------------------------------------------------------


def dilated(X, F, b, dilation, step=None):
    """The dilated convolution; `step` is how far apart the taps are taken."""
    kh, kw = F.shape[2:]
    H, W = X.shape[2] - dilation * (kh - 1), X.shape[3] - dilation * (kw - 1)
    step = dilation if step is None else step
    out = b[:, None, None]
    for i in range(kh):
        for j in range(kw):
            seen = X[:, :, i * step : i * step + H, j * step : j * step + W]
            out = out + torch.einsum("nchw,fc->nfhw", seen, F[:, :, i, j])
    return out


@mistake(
    "dilated_conv2d",
    caught_by="taps_lie_apart",
    says="The result has the right size, but the taps are still taken from neighbouring pixels: tap (i, j) is at row "
    "r + i·dilation, column s + j·dilation.",
)
def taps_side_by_side(X, F, b, dilation):
    return dilated(X, F, b, dilation, 1)


@mistake(
    "dilated_conv2d",
    caught_by=("taps_lie_apart", "bias_is_added", "smallest_sizes"),
    says="The dilation is used as a stride. A stride thins out the windows, a dilation spreads the taps of each.",
)
def dilation_as_a_stride(X, F, b, dilation):
    return dilated(X, F, b, 1)[:, :, ::dilation, ::dilation]


@mistake(
    "dilated_conv2d",
    caught_by=("taps_lie_apart", "bias_is_added", "smallest_sizes"),
    says="There are `dilation` zeros between the taps; with dilation d the taps lie d apart, with d − 1 zeros between.",
)
def one_zero_too_many(X, F, b, dilation):
    return dilated(X, F, b, dilation + (dilation > 1))


@mistake(
    "dilated_conv2d",
    caught_by="dilation_one",
    says="The filters are turned by 180°. Cross-correlation lays them over the image as they stand.",
)
def dilated_filters_flipped(X, F, b, dilation):
    return dilated(X, F.flip(2, 3), b, dilation)


@mistake(
    "dilated_conv2d",
    caught_by="bias_is_added",
    says="b is not added.",
)
def dilated_without_bias(X, F, b, dilation):
    return dilated(X, F, 0 * b, dilation)


class Inception(nn.Module):
    """A right block of four branches, to be spoiled."""

    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__()
        self.one, self.three = nn.Conv2d(c_in, c_1, 1), nn.Conv2d(c_in, c_3, 3, padding=1)
        self.five = nn.Conv2d(c_in, c_5, 5, padding=2)
        self.pool, self.after = nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(c_in, c_pool, 1)

    def parts(self, x):
        return [self.one(x), self.three(x), self.five(x), self.after(self.pool(x))]

    def forward(self, x):
        return torch.relu(torch.cat(self.parts(x), 1))


@mistake(
    "InceptionBlock",
    caught_by=("branch_3x3", "branch_5x5"),
    says="The kernels are exchanged: the c_3 channels come from a 5×5 convolution and the c_5 channels from a 3×3 one.",
)
class KernelsExchanged(Inception):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__(c_in, c_1, c_3, c_5, c_pool)
        self.three = nn.Conv2d(c_in, c_3, 5, padding=2)
        self.five = nn.Conv2d(c_in, c_5, 3, padding=1)


@mistake(
    "InceptionBlock",
    caught_by="branch_5x5",
    says="The 5×5 branch has a 3×3 kernel.",
)
class FiveIsThree(Inception):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__(c_in, c_1, c_3, c_5, c_pool)
        self.five = nn.Conv2d(c_in, c_5, 3, padding=1)


@mistake(
    "InceptionBlock",
    caught_by="largest_of_each_channel",
    says="The image is padded with zeros and then pooled, so at the border 0 wins over negative values. "
    "`nn.MaxPool2d(3, stride=1, padding=1)` pads with −∞.",
)
class PooledBesideZeros(Inception):
    def parts(self, x):
        pooled = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 1)
        return [self.one(x), self.three(x), self.five(x), self.after(pooled)]


@mistake(
    "InceptionBlock",
    caught_by="branch_pooled",
    says="The fourth branch does not pool before its 1×1 convolution.",
)
class PoolingForgotten(Inception):
    def parts(self, x):
        return [self.one(x), self.three(x), self.five(x), self.after(x)]


@mistake(
    "InceptionBlock",
    caught_by="branch_5x5",
    says="The branches are run one after the other: the 5×5 branch sees what the 3×3 one made. Each branch works on "
    "the input itself.",
)
class BranchesInARow(Inception):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__(c_in, c_1, c_3, c_5, c_pool)
        self.five = nn.Conv2d(c_3, c_5, 5, padding=2)

    def parts(self, x):
        three = self.three(x)
        return [self.one(x), three, self.five(three), self.after(self.pool(x))]


@mistake(
    "InceptionBlock",
    caught_by="branch_3x3",
    says="The 3×3 branch has a 1×1 kernel.",
)
class ThreeIsOne(Inception):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__(c_in, c_1, c_3, c_5, c_pool)
        self.three = nn.Conv2d(c_in, c_3, 1)


@mistake(
    "InceptionBlock",
    caught_by="pooling_forgets_the_place",
    says="The fourth branch is a 3×3 convolution; a pooling over 3×3 pixels, then 1×1, is asked for.",
)
class PoolingIsAConvolution(Inception):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__(c_in, c_1, c_3, c_5, c_pool)
        self.pool, self.after = nn.Identity(), nn.Conv2d(c_in, c_pool, 3, padding=1)


@mistake(
    "InceptionBlock",
    caught_by="relu_in_every_branch",
    says="No branch ends with a ReLU.",
)
class InceptionWithoutRelu(Inception):
    def forward(self, x):
        return torch.cat(self.parts(x), 1)


@mistake(
    "InceptionBlock",
    caught_by="relu_in_every_branch",
    says="The pooled branch has no ReLU after its 1×1 convolution.",
)
class PooledBranchWithoutRelu(Inception):
    def forward(self, x):
        *others, pooled = self.parts(x)
        return torch.cat([*map(torch.relu, others), pooled], 1)


@mistake(
    "InceptionBlock",
    caught_by="largest_of_each_channel",
    says="The fourth branch convolves first and pools afterwards. It pools the input, then convolves.",
)
class ConvolvesBeforePooling(Inception):
    def parts(self, x):
        return [self.one(x), self.three(x), self.five(x), self.pool(self.after(x))]


@mistake(
    "InceptionBlock",
    caught_by="largest_of_each_channel",
    says="The fourth branch takes the mean of its 3×3 window. The largest value is asked for.",
)
class PoolsTheMean(Inception):
    def parts(self, x):
        mean = functional.avg_pool2d(x, 3, stride=1, padding=1)
        return [self.one(x), self.three(x), self.five(x), self.after(mean)]


@mistake(
    "InceptionBlock",
    caught_by="branches_convolve_the_input",
    says="The ReLU acts on the input too, so the branches never see its negative values.",
)
class InputRectified(Inception):
    def parts(self, x):
        return super().parts(torch.relu(x))


class Separable(nn.Module):
    """A right separable block, to be spoiled."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise, self.norm = nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))


@mistake(
    "SeparableConvBlock",
    caught_by="output_in_evaluation",
    says="The first convolution is not depthwise: without `groups=c_in` each of its filters sees all channels, which "
    "is the cost that a separable convolution saves.",
)
class NotDepthwise(Separable):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.depthwise = conv3(c_in, c_in)


@mistake(
    "SeparableConvBlock",
    caught_by="output_in_evaluation",
    says="There is a ReLU between the depthwise and the pointwise convolution; BN and ReLU come after both.",
)
class ReluBetween(Separable):
    def forward(self, x):
        return torch.relu(self.norm(self.pointwise(torch.relu(self.depthwise(x)))))


@mistake(
    "SeparableConvBlock",
    caught_by="output_in_evaluation",
    says="What is larger than 6 is cut off: this is a ReLU6. A ReLU only cuts off what is negative.",
)
class EndsWithRelu6(Separable):
    def forward(self, x):
        return functional.relu6(self.norm(self.pointwise(self.depthwise(x))))


@mistake(
    "SeparableConvBlock",
    caught_by="output_in_evaluation",
    says="The ReLU at the end is missing.",
)
class SeparableWithoutRelu(Separable):
    def forward(self, x):
        return self.norm(self.pointwise(self.depthwise(x)))


@mistake(
    "SeparableConvBlock",
    caught_by=("output_in_evaluation", "output_in_training", "running_statistics_move"),
    says="BN is missing.",
)
class SeparableWithoutNorm(Separable):
    def forward(self, x):
        return torch.relu(self.pointwise(self.depthwise(x)))


@mistake(
    "SeparableConvBlock",
    caught_by="output_in_evaluation",
    says="The pointwise convolution comes first. Depthwise 3×3 on the c_in channels, then 1×1, is asked for.",
)
class PointwiseFirst(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.pointwise, self.norm = nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        self.depthwise = nn.Conv2d(c_out, c_out, 3, padding=1, groups=c_out, bias=False)

    def forward(self, x):
        return torch.relu(self.norm(self.depthwise(self.pointwise(x))))


@mistake(
    "class_weights",
    caught_by=("rare_classes_weigh_more", "weights_have_mean_one", "one_class_has_it_all"),
    says="The weights are the counts themselves, so frequent classes count even more. Rare classes are to weigh "
    "more: the inverse.",
)
def weights_by_count(y, K):
    return K * torch.bincount(y, minlength=K).float() / len(y)


@mistake(
    "class_weights",
    caught_by="one_class_has_it_all",
    says="K is taken for the number of classes that occur. It is the number of all classes: N / (K·n_k).",
)
def only_present_classes_counted(y, K):
    counts = torch.bincount(y, minlength=K).float()
    return torch.where(counts > 0, len(y) / ((counts > 0).sum() * counts), torch.zeros_like(counts))


@mistake(
    "class_weights",
    caught_by=("weights_have_mean_one", "one_class_has_it_all"),
    says="The factor N / K is missing: the weights are 1 / n_k, so the loss becomes tiny and needs another learning "
    "rate.",
)
def inverse_counts_only(y, K):
    counts = torch.bincount(y, minlength=K).float()
    return torch.where(counts > 0, 1 / counts, torch.zeros_like(counts))


@mistake(
    "class_weights",
    caught_by=("weights_have_mean_one", "one_class_has_it_all"),
    says="The weights are N / n_k: the factor 1 / K is missing, so they do not have mean 1.",
)
def weights_without_k(y, K):
    counts = torch.bincount(y, minlength=K).float()
    return torch.where(counts > 0, len(y) / counts, torch.zeros_like(counts))


@mistake(
    "class_weights",
    caught_by="absent_classes_weigh_nothing",
    says="A class without examples gets N / (K·0) = ∞, which makes the loss NaN. It gets 0.",
)
def absent_class_infinite(y, K):
    return len(y) / (K * torch.bincount(y, minlength=K).float())


@mistake(
    "class_weights",
    caught_by="absent_classes_weigh_nothing",
    says="A class without examples is counted as if it had one (`clamp(min=1)`). It gets weight 0.",
)
def absent_class_counted_once(y, K):
    return len(y) / (K * torch.bincount(y, minlength=K).clamp(min=1).float())


@mistake(
    "class_weights",
    caught_by=("rare_classes_weigh_more", "weights_have_mean_one", "one_class_has_it_all"),
    says="1 is added to every count, so that no division by 0 can happen; that changes all the weights.",
)
def one_added_to_every_count(y, K):
    counts = torch.bincount(y, minlength=K).float()
    return torch.where(counts > 0, len(y) / (K * (counts + 1)), torch.zeros_like(counts))


@mistake(
    "class_weights",
    caught_by="absent_classes_weigh_nothing",
    says="There are as many weights as the largest label says; K are asked for.",
)
def as_many_weights_as_labels_say(y, K):
    counts = torch.bincount(y).float()
    return torch.where(counts > 0, len(y) / (K * counts), torch.zeros_like(counts))


@mistake(
    "class_weights",
    caught_by=("weights_have_mean_one", "one_class_has_it_all"),
    says="The weights are divided by their sum, so they add up to 1 instead of giving every example the mean weight 1.",
)
def weights_that_add_up_to_one(y, K):
    counts = torch.bincount(y, minlength=K).float()
    weights = torch.where(counts > 0, 1 / counts, torch.zeros_like(counts))
    return weights / weights.sum()


def members_of(y):
    """The indices of the examples of every class that occurs."""
    return [torch.nonzero(y == k)[:, 0] for k in y.unique()]


def some(indices, count, generator):
    """So many of the indices, at random."""
    return indices[torch.randperm(len(indices), generator=generator)[:count]]


@mistake(
    "balanced_batches",
    caught_by=("as_many_of_every_class", "drawn_anew"),
    says="All examples come: this is an ordinary shuffled epoch. From every class as many as the smallest has are "
    "taken.",
)
def nothing_balanced(y, batch_size, generator):
    return torch.randperm(len(y), generator=generator).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by=("as_many_of_every_class", "without_replacement"),
    says="The small classes are filled up by repeating examples. Without replacement: the larger ones give fewer.",
)
def small_classes_repeated(y, batch_size, generator):
    members = members_of(y)
    most = max(map(len, members))
    chosen = torch.cat([m[torch.randint(0, len(m), (most,), generator=generator)] for m in members])
    return some(chosen, len(chosen), generator).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by="without_replacement",
    says="The examples of a class are drawn with replacement, so some come twice in an epoch and others not at all.",
)
def drawn_with_repetition(y, batch_size, generator):
    members = members_of(y)
    least = min(map(len, members))
    chosen = torch.cat([m[torch.randint(0, len(m), (least,), generator=generator)] for m in members])
    return some(chosen, len(chosen), generator).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by="drawn_anew",
    says="Always the first examples of each class are taken, so most of a large class is never seen. Draw anew at "
    "each call.",
)
def always_the_first_ones(y, batch_size, generator):
    members = members_of(y)
    chosen = torch.cat([m[: min(map(len, members))] for m in members])
    return some(chosen, len(chosen), generator).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by="classes_are_mixed",
    says="The classes come one after the other: after joining them the indices have to be shuffled.",
)
def classes_not_mixed(y, batch_size, generator):
    members = members_of(y)
    return torch.cat([some(m, min(map(len, members)), generator) for m in members]).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by="classes_that_do_not_occur",
    says="A class that does not occur counts as the smallest one, with 0 examples, and so the epoch is empty.",
)
def absent_class_is_the_smallest(y, batch_size, generator):
    counts = torch.bincount(y)
    members = [torch.nonzero(y == k)[:, 0] for k in range(len(counts))]
    chosen = torch.cat([some(m, int(counts.min()), generator) for m in members])
    return some(chosen, len(chosen), generator).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by=("at_most_batch_size", "smallest_epochs"),
    says="Every class gives batch_size examples to each batch, which then has more than batch_size.",
)
def batch_size_for_every_class(y, batch_size, generator):
    members = members_of(y)
    least = min(map(len, members))
    drawn = [some(m, least, generator).split(batch_size) for m in members]
    joined = [torch.cat(parts) for parts in zip(*drawn, strict=True)]
    return [some(part, len(part), generator) for part in joined]


@mistake(
    "balanced_batches",
    caught_by=("drawn_anew", "classes_are_mixed", "generator_decides"),
    says="The order comes from a generator of its own with a fixed seed, so every epoch is the same. Use the one "
    "that is given.",
)
def balanced_with_a_fixed_seed(y, batch_size, generator):
    generator, members = torch.Generator().manual_seed(0), members_of(y)
    chosen = torch.cat([some(m, min(map(len, members)), generator) for m in members])
    return some(chosen, len(chosen), generator).split(batch_size)


@mistake(
    "balanced_batches",
    caught_by="as_many_of_every_class",
    says="The last batch is dropped where it is short, so the classes do not come equally often. It may be short.",
)
def short_batch_dropped(y, batch_size, generator):
    members = members_of(y)
    chosen = torch.cat([some(m, min(map(len, members)), generator) for m in members])
    parts = some(chosen, len(chosen), generator).split(batch_size)
    return [part for part in parts if len(part) == batch_size] or list(parts)


@mistake(
    "balanced_batches",
    caught_by="keeps_form",
    says="The batches are lists of Python numbers; int64 tensors are asked for.",
)
def batches_as_lists(y, batch_size, generator):
    members = members_of(y)
    chosen = torch.cat([some(m, min(map(len, members)), generator) for m in members])
    return [part.int() for part in some(chosen, len(chosen), generator).split(batch_size)]


@mistake(
    "balanced_batches",
    caught_by="classes_are_mixed",
    says="Only within its batch is the order random: the classes are joined one after the other, so a batch has one or "
    "two of them. Shuffle before cutting into batches.",
)
def mixed_within_batches(y, batch_size, generator):
    members = members_of(y)
    joined = torch.cat([some(m, min(map(len, members)), generator) for m in members])
    return [some(batch, len(batch), generator) for batch in joined.split(batch_size)]


@mistake(
    "balanced_batches",
    caught_by="drawn_anew",
    says="A run of neighbours is taken from each class, from a random start on, so the same examples always come "
    "together. Draw every example by itself: the first of a `randperm`.",
)
def neighbours_taken_together(y, batch_size, generator):
    members = members_of(y)
    least = min(map(len, members))
    starts = [int(torch.randint(0, len(m) - least + 1, (1,), generator=generator)) for m in members]
    chosen = torch.cat([m[k : k + least] for m, k in zip(members, starts, strict=True)])
    return some(chosen, len(chosen), generator).split(batch_size)
